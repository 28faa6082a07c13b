"""Shares as the lines use them: the namespace that stands first is charged, again and again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.scheduling.shares import BACKLOG_S, EXAMINATION_S, LEAD_S, Shares

works_s = st.floats(0.1, 50.0)
weights = st.floats(0.25, 4.0)


def serve(
    shares: Shares,
    works: dict[str, float],
    rounds: int,
    priorities: dict[str, float] | None = None,
    *,
    until: str | None = None,
) -> list[str]:
    """Start tasks of namespaces that always have one to start, at most until one does; return whose, in order."""
    priorities = priorities or {}
    started = []
    for _ in range(rounds):
        first = min(works, key=lambda name: shares.standing(name, priorities.get(name, 0.0)))
        shares.charge(first, works[first])
        started.append(first)
        if first == until:
            break
    return started


@given(st.lists(st.tuples(works_s, weights), min_size=2, max_size=6))
def test_what_namespaces_are_given_follows_their_weights(namespaces: list[tuple[float, float]]) -> None:
    names = [f"n{number}" for number in range(len(namespaces))]
    works = {name: work for name, (work, _) in zip(names, namespaces, strict=True)}
    weight_of = {name: weight for name, (_, weight) in zip(names, namespaces, strict=True)}
    started = serve(Shares(weight_of), works, 500)
    given_s = {name: started.count(name) * works[name] / weight_of[name] for name in names}
    longest_s = max(works[name] / weight_of[name] for name in names)
    assert max(given_s.values()) - min(given_s.values()) <= longest_s * (1 + 1e-9)


@given(
    others=st.lists(works_s, min_size=1, max_size=6),
    weight=weights,
    priority=st.floats(-1.0, 1.0),
    own=st.floats(-1.0, 1.0),
    busy=st.integers(0, 300),
)
def test_a_newcomer_waits_for_one_task_of_each_other_and_a_bounded_lead(
    others: list[float], weight: float, priority: float, own: float, busy: int
) -> None:
    works = {f"n{number}": work for number, work in enumerate(others)}
    shares = Shares(dict.fromkeys(works, weight))
    priorities = {**dict.fromkeys(works, priority), "new": own}
    serve(shares, works, busy, priorities)
    started = serve(shares, {**works, "new": 1.0}, 5000, priorities, until="new")
    before = started[: started.index("new")]
    lead_s = weight * LEAD_S * max(priority - own, 0.0)
    for name, work in works.items():
        assert before.count(name) * work <= lead_s + work + 1e-6


def test_a_namespace_that_asked_for_little_catches_up_to_a_limit() -> None:
    shares = Shares()
    shares.charge("idle", 1.0)
    serve(shares, {"busy": 1.0}, 1000)
    started = serve(shares, {"busy": 1.0, "idle": 1.0}, 100)
    assert started.index("busy") == pytest.approx(BACKLOG_S, abs=1)


def test_a_start_that_was_not_carried_out_costs_nothing() -> None:
    shares = Shares()
    serve(shares, {"a": 1.0, "b": 1.0}, 10)
    before = shares.standing("a", 0.0)
    shares.charge("a", 8.0)
    shares.refund("a", 8.0)
    assert shares.standing("a", 0.0) == before


def test_an_examination_without_success_passes_the_turn_on() -> None:
    shares = Shares()
    assert serve(shares, {"a": EXAMINATION_S, "b": EXAMINATION_S}, 4) == ["a", "b", "a", "b"]


def test_namespaces_that_have_caught_up_are_forgotten() -> None:
    shares = Shares()
    for number in range(10_000):
        shares.charge(f"once-{number}", 10.0)
        shares.charge("busy", 1.0)
    assert len(shares) < 200
