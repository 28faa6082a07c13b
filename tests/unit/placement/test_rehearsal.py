"""The other scheduler in virtual time, next to real tasks that it does not see."""

from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest

from perllm.cluster.node import Node
from perllm.placement import rehearsal
from perllm.placement.away_nodes import EVICTION_S, LOOK_S
from perllm.placement.ledger import Ledger
from perllm.placement.loaded_models import MAX_MODELS, LoadedModels
from perllm.placement.placer import Placement
from perllm.placement.rehearsal import Rehearsal
from unit.learning.outcomes import make_outcome
from unit.placement.cluster_of import Setting, make_node, make_placer, make_request, make_setting
from unit.placement.records import make_decision
from unit.scheduling.schedulers import UPLINK


@dataclass
class Rehearsed:
    """A rehearsal, and the real side with a ledger of its own."""

    real: Setting
    rehearsal: Rehearsal
    ledger: Ledger

    def foresee(self, task: str) -> float:
        """Return the seconds that are expected of a task."""
        known = self.rehearsal.place(make_request(task))
        assert known is not None
        return known.forecast.times.latency_s

    def wait_s(self, task: str) -> float:
        """Return the seconds that a task is expected to wait for room."""
        known = self.rehearsal.place(make_request(task))
        assert known is not None
        return known.wait_s


def choose_first(placement: Placement) -> int | None:
    takes_pods = np.flatnonzero(placement.arms.compute_capacity > 0)
    return int(takes_pods[0]) if len(takes_pods) else None


def make_rehearsed(*nodes: Node, slots: float = 4.0, is_own: bool = False) -> Rehearsed:
    real = make_setting(*(nodes or [make_node("n", slots=slots)]))
    ledger, loaded = Ledger(), LoadedModels()
    rehearsal = Rehearsal(
        make_placer(real, ledger, loaded),
        ledger,
        loaded,
        real=real.ledger,
        fleet=real.fleet,
        learner=real.learner,
        choose=choose_first,
        is_own=is_own,
        rng=Random(0),
        now_s=lambda: real.now_s,
    )
    rehearsal.note_bandwidth()
    return Rehearsed(real, rehearsal, ledger)


def test_it_follows_so_many_tasks_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MAX_RUNS", 2)
    rehearsed = make_rehearsed()
    for task in "abc":
        rehearsed.rehearsal.place(make_request(task))
    assert [rehearsed.rehearsal.find(task) is not None for task in "abc"] == [True, True, False]
    rehearsed.real.now_s += 1e5
    assert rehearsed.rehearsal.place(make_request("d", due_s=2e5)) is not None


def test_it_meets_its_own_tasks_and_not_the_real_ones() -> None:
    rehearsed = make_rehearsed(slots=2.0)
    setting = rehearsed.real
    for number in range(2):
        setting.placer.reserve(setting.placer.choose(make_request(f"real-{number}")), "n")
    waits = [rehearsed.wait_s(task) for task in ("a", "b", "c")]
    assert [wait_s > 0 for wait_s in waits] == [False, False, True]


def test_a_task_leaves_when_its_expected_latency_has_passed() -> None:
    rehearsed = make_rehearsed(slots=1.0)
    took_s = rehearsed.foresee("a")
    assert rehearsed.wait_s("b") > 0
    rehearsed.real.now_s += 20 * took_s
    assert rehearsed.wait_s("c") == 0


def test_a_task_leaves_later_if_others_join_it() -> None:
    def residence_s(others: int) -> float:
        rehearsed = make_rehearsed(slots=20.0)
        rehearsed.foresee("a")
        for number in range(others):
            rehearsed.foresee(f"other-{number}")
        begun_s = rehearsed.real.now_s
        while "a" in rehearsed.ledger:
            rehearsed.real.now_s += 0.5
            rehearsed.rehearsal.find_residence("a")
        return rehearsed.real.now_s - begun_s

    assert residence_s(10) > 1.2 * residence_s(0)


def test_an_answer_is_as_long_as_the_real_one_once_that_has_ended() -> None:
    def residence_s(output_tokens: float) -> float:
        rehearsed = make_rehearsed()
        rehearsed.foresee("a")
        begun_s = rehearsed.real.now_s
        rehearsed.rehearsal.note_end("a", output_tokens)
        while "a" in rehearsed.ledger:
            rehearsed.real.now_s += 0.1
            rehearsed.rehearsal.find_residence("a")
        return rehearsed.real.now_s - begun_s

    alone = make_rehearsed().rehearsal.place(make_request("a"))
    assert alone is not None
    token_s = alone.forecast.times.solo_token_s
    assert residence_s(2000.0) - residence_s(1000.0) == pytest.approx(1000.0 * token_s, abs=0.2)
    assert residence_s(1000.0) - residence_s(10.0) == pytest.approx(990.0 * token_s, abs=0.2)


def test_an_answer_is_longer_than_what_the_real_task_has_written() -> None:
    rehearsed = make_rehearsed()
    placer = rehearsed.real.placer
    placer.reserve(placer.choose(make_request("a")), "n")
    took_s = max(rehearsed.foresee(task) for task in ("a", "b"))
    rehearsed.real.now_s += 200 * took_s
    rehearsed.rehearsal.find_residence("b")
    assert ["a" in rehearsed.ledger, "b" in rehearsed.ledger] == [True, False]


def test_tasks_on_a_node_that_leaves_begin_again_elsewhere_with_the_same_answer_to_write() -> None:
    rehearsed = make_rehearsed(make_node("n"), make_node("other"))
    first = rehearsed.rehearsal.place(make_request("a"))
    rehearsed.rehearsal.note_end("a", 1000.0)
    rehearsed.rehearsal.place(make_request("gone"))
    rehearsed.rehearsal.forget("gone")
    rehearsed.real.now_s += 5.0
    rehearsed.real.fleet.remove("n")
    rehearsed.rehearsal.lose_node("n")
    again = rehearsed.rehearsal.find("a")
    assert first is not None
    assert again is not None
    assert (first.node, again.node, again.at_s - first.at_s) == ("n", "other", 5.0)
    assert rehearsed.ledger.count(rehearsed.real.fleet.row("other"), "m") == 2
    assert rehearsed.rehearsal.find("gone") is None
    rehearsed.real.now_s += 1000.0 * again.forecast.times.solo_token_s
    rehearsed.rehearsal.find_residence("a")
    assert "a" in rehearsed.ledger


def test_tasks_on_a_node_that_does_not_answer_begin_again_elsewhere_once_kubernetes_gives_up_their_pods() -> None:
    rehearsed = make_rehearsed(make_node("n"), make_node("other"))
    rehearsed.foresee("a")
    rehearsed.real.fleet.put(make_node("n", is_open=False), 0, UPLINK)
    rehearsed.rehearsal.note_node("n", answers=False)
    rehearsed.real.now_s += EVICTION_S - 1.0
    rehearsed.rehearsal.find_residence("a")
    assert rehearsed.ledger.count(0, "m") == 1, "whether it has ended is not known"
    rehearsed.real.now_s += 2.0
    rehearsed.rehearsal.find_residence("a")
    again = rehearsed.rehearsal.find("a")
    assert again is not None
    assert (again.node, rehearsed.ledger.count(0, "m")) == ("other", 0)


def test_tasks_on_a_node_that_answers_again_in_time_have_ended_meanwhile() -> None:
    rehearsed = make_rehearsed()
    rehearsed.foresee("a")
    rehearsed.rehearsal.note_node("n", answers=False)
    rehearsed.real.now_s += EVICTION_S - LOOK_S
    rehearsed.rehearsal.find_residence("a")
    rehearsed.rehearsal.note_node("n", answers=True)
    rehearsed.real.now_s += LOOK_S
    rehearsed.rehearsal.find_residence("a")
    assert "a" not in rehearsed.ledger


@pytest.mark.parametrize("away_after_s", [0.0, 1000.0], ids=["while it runs", "once it has ended"])
def test_a_task_is_compared_unless_its_counterfactual_is_on_a_node_that_does_not_answer(away_after_s: float) -> None:
    rehearsed = make_rehearsed()
    prospect = rehearsed.rehearsal.place(make_request("a"))
    decision = make_decision(task_id="a", counterfactual=prospect)
    rehearsed.real.now_s += away_after_s
    rehearsed.rehearsal.note_node("n", answers=False)
    ending = rehearsed.rehearsal.review(decision, 2000.0, None)
    assert (ending is None) == (away_after_s == 0.0)


def test_the_model_is_loaded_once_and_the_real_node_does_not_count_as_having_it() -> None:
    rehearsed = make_rehearsed()
    cold_s = rehearsed.foresee("a")
    rehearsed.real.now_s += 1000.0
    assert rehearsed.foresee("b") < cold_s
    placement = rehearsed.real.placer.choose(make_request("real", due_s=1e6))
    assert placement.outlook.times.cold[0] == 1.0


def test_a_choice_is_made_once_and_kept_until_the_task_is_gone() -> None:
    rehearsal = make_rehearsed().rehearsal
    first = rehearsal.place(make_request("a"))
    assert rehearsal.place(make_request("a")) is first
    assert first is not None
    assert rehearsal.find("a") == first
    rehearsal.forget("a")
    assert rehearsal.find("a") is None


def test_a_task_that_was_forgotten_and_comes_back_runs_on() -> None:
    rehearsed = make_rehearsed()
    first = rehearsed.rehearsal.place(make_request("a"))
    rehearsed.rehearsal.forget("a")
    assert rehearsed.rehearsal.place(make_request("a")) is first
    rehearsed.real.now_s += 1000.0
    rehearsed.foresee("b")
    assert "a" not in rehearsed.ledger


def test_in_shadow_mode_the_policy_learns_what_its_own_choice_would_have_taken() -> None:
    """Else a deadline would be priced by the energy of tasks as the real scheduler places them."""
    rehearsed = make_rehearsed(is_own=True)
    outcome = make_outcome(task_id="a", node="other", inference_energy_j=1e6)
    assert rehearsed.rehearsal.judge_own(outcome) is None
    rehearsed.foresee("a")
    own = rehearsed.rehearsal.judge_own(outcome)
    assert own is not None
    assert (own.row, own.energy_j < 1e5) == (0, True)


def test_in_active_mode_it_learns_from_the_real_one() -> None:
    rehearsed = make_rehearsed(is_own=False)
    rehearsed.foresee("a")
    assert rehearsed.rehearsal.judge_own(make_outcome(task_id="a")) is None


def test_requests_to_model_servers_are_not_rehearsed() -> None:
    assert make_rehearsed().rehearsal.place(replace(make_request("a"), is_served=True)) is None


def test_a_model_is_loaded_from_the_first_task_on() -> None:
    loaded, rows, load_s = LoadedModels(), np.array([0, 2, 5]), np.full(3, 10.0)
    loaded.note("m", 2, 100.0)
    loaded.note("m", 2, 104.0)
    assert loaded.cold("m", rows, load_s, 105.0).tolist() == [1.0, 0.5, 1.0]
    assert loaded.cold("m", rows, load_s, 200.0).tolist() == [1.0, 0.0, 1.0]
    assert loaded.cold("other", rows, load_s, 105.0).tolist() == [1.0, 1.0, 1.0]


def test_a_failure_of_the_rehearsal_reaches_no_real_task(caplog: pytest.LogCaptureFixture) -> None:
    rehearsed = make_rehearsed()
    rehearsed.rehearsal._choose = lambda _: 99  # type: ignore[method-assign]
    assert rehearsed.rehearsal.place(make_request("a")) is None
    assert "the rehearsal of task a has failed: IndexError" in caplog.text


def test_of_models_that_any_tenant_may_name_only_so_many_are_remembered() -> None:
    loaded, rows, load_s = LoadedModels(), np.array([0]), np.array([10.0])
    for number in range(MAX_MODELS + 1):
        loaded.note(f"m{number}", 0, 0.0)
    assert [loaded.cold(model, rows, load_s, 100.0)[0] for model in ("m0", "m1")] == [1.0, 0.0]
