"""Tasks, arms and outcomes for the tests of baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from perllm.policy.problem import Arms, Choice, Feedback, TaskFeatures


def make_task(*, time_left_s: float = 10.0, prompt_tokens: float = 100.0, output_tokens: float = 100.0) -> TaskFeatures:
    return TaskFeatures(
        model="m",
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        input_bytes=0.0,
        time_left_s=time_left_s,
        deadline_s=10.0,
    )


def make_arms(
    *,
    used: Sequence[float],
    slots: Sequence[float] | None = None,
    latency_s: Sequence[float] | None = None,
    energy_j: Sequence[float] | None = None,
    cloud: Sequence[bool] | None = None,
    allowed: Sequence[bool] | None = None,
    rows: Sequence[int] | None = None,
) -> Arms:
    """Return arms; `used` counts the task itself, nodes have 4 slots and do a task in 1 s by default."""
    n = len(used)
    zeros, ones = np.zeros(n), np.ones(n)
    return Arms(
        rows=np.arange(n) if rows is None else np.array(rows),
        allowed=np.array([True] * n if allowed is None else allowed, dtype=np.bool_),
        latency_s=np.array([1.0] * n if latency_s is None else latency_s, dtype=np.float64),
        energy_j=np.array([1.0] * n if energy_j is None else energy_j, dtype=np.float64),
        compute_used=np.array(used, dtype=np.float64),
        compute_capacity=np.array([4.0] * n if slots is None else slots, dtype=np.float64),
        bandwidth_used_bps=zeros,
        bandwidth_capacity_bps=ones * 1e8,
        in_flight=zeros,
        is_cloud=np.array([False] * n if cloud is None else cloud, dtype=np.bool_),
        hit_chance=ones,
        harm=zeros,
        marginal_energy_j=ones,
        transmission_j=zeros,
        work=ones,
        load=zeros,
        doubt=zeros,
        plays=ones,
        spread=ones,
        joule_cost=ones,
        idle_j=zeros,
    )


def make_feedback(row: int, latency_s: float, *, task: TaskFeatures | None = None) -> Feedback:
    """Return what became of `task` on the node of that row."""
    of = task or make_task()
    return Feedback(
        model=of.model,
        row=row,
        latency_s=latency_s,
        deadline_s=of.deadline_s,
        energy_j=1.0,
        prompt_tokens=of.prompt_tokens,
        output_tokens=of.output_tokens,
        resource_slack=1.0,
    )


def row_of(choice: Choice, arms: Arms) -> int | None:
    """Return the row that was chosen, which does not depend on the order of the arms."""
    return None if choice.arm is None else int(arms.rows[choice.arm])


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Arms, Arms]:
    """Draw arms, full and closed nodes among them, and the same arms in another order."""
    n = draw(st.integers(1, 8))
    order = draw(st.permutations(range(n)))

    def many(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    columns: dict[str, list[Any]] = {
        "used": many(st.integers(1, 6)),
        "slots": many(st.sampled_from([0, 2, 4, 8])),
        "latency_s": many(st.sampled_from([1.0, 2.0, 5.0, 20.0])),
        "energy_j": many(st.sampled_from([1.0, 2.0, 5.0])),
        "cloud": many(st.booleans()),
        "allowed": many(st.booleans()),
        "rows": list(range(n)),
    }
    shuffled = {name: [values[place] for place in order] for name, values in columns.items()}
    return make_arms(**columns), make_arms(**shuffled)
