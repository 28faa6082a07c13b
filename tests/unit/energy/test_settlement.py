from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from perllm.api.task_status import EnergyQuality
from perllm.cluster.pod import Pod
from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.intervals import Intervals
from perllm.energy.meters import Meter
from perllm.energy.settlement import SETTLING_S, Settlement
from unit.controller.samples import bound, running, succeeded

PATIENCE_S = 30.0


class Metered:
    """A settlement over node n, whose counter rises by 100 W, and by 20 W before 1003 s, in samples a second apart."""

    def __init__(self, *, idle_w: float | None = 20.0) -> None:
        self.meter = Meter.build("dcgm", "gpu", 2000.0, length_s=900.0)
        idle = IdlePower()
        if idle_w is not None:
            idle.observe("n", Intervals(np.array([0.0, 1.0]), np.array([idle_w]), meters=("dcgm",)), [])
        self.foreign = ForeignLoad(900.0)
        self.settlement = Settlement(
            EnergyHistory([self.meter], absent_after_s=60.0),
            idle,
            self.foreign,
            count_gpus=lambda _: 1.0,
            patience_s=PATIENCE_S,
            retry_s=1.0,
            window_s=900.0,
            now=lambda: 0.0,
        )
        self.joules = 0.0
        self.sampled_s = 989.0

    def sample_until(self, until_s: float) -> None:
        while self.sampled_s < until_s:
            self.sampled_s += 1
            self.joules += 100.0 if self.sampled_s > 1003 else 20.0
            self.meter.counters.merge("n", "gpu", [(self.sampled_s, self.joules)], self.sampled_s)

    def run(self, pod: Pod, now_s: float = 1020.0) -> None:
        self.settlement.begin(pod, 0.0, pod.started_s or now_s)
        self.settlement.end(pod, now_s)


def run_of(name: str, start_s: float, end_s: float) -> Pod:
    """Return a pod of another task that ran on the same node."""
    return succeeded(
        name=name, uid=f"uid-{name}", task_uid=f"task-{name}", started_s=start_s, finished_s=end_s, report=None
    )


def read_by(name: str, start_s: float, end_s: float, reading_s: float) -> Pod:
    """Return a pod of another task that had read its prompt, a hundred tokens a second, so long after its start."""
    report = {
        "finishedAt": datetime.fromtimestamp(end_s, UTC).isoformat(),
        "inferenceSeconds": end_s - start_s,
        "promptTokens": round(100 * reading_s),
        "outputTokens": 100,
        "timeToFirstTokenSeconds": reading_s,
    }
    return succeeded(
        name=name, uid=f"uid-{name}", task_uid=f"task-{name}", started_s=start_s, finished_s=end_s, report=report
    )


OWN = succeeded(
    finished_s=1010.0, report={"finishedAt": "1970-01-01T00:16:50Z", "inferenceSeconds": 6.0, "outputTokens": 100}
)


def test_a_task_alone_is_charged_what_its_node_took_during_its_inference() -> None:
    metered = Metered()
    metered.sample_until(1015)
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, transmission_energy_j=7.0, now_s=1020.0)
    assert energy is not None
    assert energy.quality is EnergyQuality.MEASURED
    assert energy.energy_j == pytest.approx(600 + 7)


def test_energy_counts_for_the_inference_though_the_container_stored_its_answer_afterwards() -> None:
    metered = Metered()
    metered.sample_until(1015)
    # Half of the inference fell into the seconds in which the node drew 20 W.
    report = {"finishedAt": "1970-01-01T00:16:46Z", "inferenceSeconds": 6.0, "outputTokens": 100}
    stored_late = succeeded(started_s=999.0, finished_s=1011.0, report=report)
    metered.run(stored_late)
    energy = metered.settlement.measure(stored_late, transmission_energy_j=0.0, now_s=1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(3 * 100 + 3 * 20)


def test_tasks_on_a_node_share_its_energy_and_nothing_is_lost_or_invented() -> None:
    metered = Metered()
    metered.sample_until(1030)
    pods = [run_of("x", 1004.0, 1012.0), run_of("y", 1006.0, 1014.0), run_of("z", 1004.0, 1008.0)]
    for pod in pods:
        metered.run(pod, now_s=pod.finished_s or 0)
    shares = [metered.settlement.measure(pod, 0.0, 1030.0) for pod in pods]
    total_j = sum(share.energy_j for share in shares if share and share.energy_j)
    assert total_j == pytest.approx(1000.0)
    assert all(share and share.energy_j and share.energy_j < 700 for share in shares)


def test_one_that_still_runs_has_its_share() -> None:
    metered = Metered()
    metered.sample_until(1015)
    other = running(name="x", uid="uid-x", task_uid="task-x", started_s=1000.0)
    metered.settlement.begin(other, 0.0, 1000.0)
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, 0.0, 1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(300, rel=0.05)
    metered.settlement.forget("uid-x")
    alone = metered.settlement.measure(OWN, 0.0, 1020.0)
    assert alone is not None
    assert alone.energy_j == pytest.approx(600, rel=0.01)


def test_one_that_was_ended_has_its_share_until_it_was_first_missed() -> None:
    metered = Metered()
    metered.sample_until(1015)
    other = running(name="x", uid="uid-x", task_uid="task-x", started_s=1003.0)
    metered.settlement.begin(other, 0.0, 1003.0)
    for missed_s in (1007.0, 1009.0):
        metered.settlement.end(other, missed_s)
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, 0.0, 1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(3 * 50 + 3 * 100)


def test_nothing_is_lost_or_invented_although_a_neighbour_met_prompts_that_others_did_not() -> None:
    metered = Metered()
    metered.sample_until(1040)
    pods = [read_by("x", 1004.0, 1010.0, 1.0), read_by("y", 1005.0, 1026.0, 1.0), read_by("z", 1016.0, 1030.0, 8.0)]
    for pod in pods:
        metered.run(pod, now_s=pod.finished_s or 0)
    shares = [metered.settlement.measure(pod, 0.0, 1040.0) for pod in pods]
    assert sum(share.energy_j for share in shares if share and share.energy_j) == pytest.approx(2600.0, rel=0.002)


def test_an_earlier_attempt_of_the_task_has_its_own_share() -> None:
    metered = Metered()
    metered.sample_until(1030)
    neighbour, first, second = run_of("x", 1004.0, 1012.0), succeeded(1, finished_s=1012.0), succeeded(2)
    for pod in (neighbour, first):
        metered.run(pod, now_s=1012.0)
    before = metered.settlement.measure(neighbour, 0.0, 1030.0)
    metered.settlement.begin(running(2, started_s=1020.0), 0.0, 1020.0)
    metered.settlement.forget(second.uid)
    assert metered.settlement.measure(neighbour, 0.0, 1030.0) == before


def test_the_answer_waits_for_samples_that_cover_the_run() -> None:
    metered = Metered()
    metered.run(OWN)
    metered.sample_until(1009)
    assert metered.settlement.measure(OWN, 0.0, 1012.0) is None
    metered.sample_until(1010)
    assert metered.settlement.measure(OWN, 0.0, 1012.0) is not None


def test_the_answer_waits_for_pods_that_ran_beside_it_and_are_told_of_late() -> None:
    metered = Metered()
    metered.sample_until(1015)
    metered.run(OWN)
    assert metered.settlement.measure(OWN, 0.0, 1010.0 + SETTLING_S - 0.1) is None
    metered.settlement.begin(running(name="x", uid="uid-x", task_uid="task-x", started_s=1003.0), 0.0, 1011.0)
    energy = metered.settlement.measure(OWN, 0.0, 1010.0 + SETTLING_S)
    assert energy is not None
    assert energy.energy_j == pytest.approx(300, rel=0.05)


def test_an_energy_is_not_looked_for_before_it_can_be_known() -> None:
    settlement = Metered().settlement
    assert settlement.find_pause_s(OWN, 1010.0) == SETTLING_S
    assert settlement.find_pause_s(OWN, 1010.0 + SETTLING_S) == settlement.retry_s


def test_what_never_comes_is_missing_not_zero() -> None:
    metered = Metered()
    assert metered.settlement.measure(OWN, 7.0, 1010.0 + PATIENCE_S - 0.1) is None
    energy = metered.settlement.measure(OWN, 7.0, 1010.0 + PATIENCE_S)
    assert energy is not None
    assert (energy.energy_j, energy.quality) == (None, EnergyQuality.MISSING)


def test_a_clock_that_runs_ahead_in_the_container_does_not_postpone_it_for_ever() -> None:
    metered = Metered()
    metered.sample_until(1015)
    pod = succeeded(finished_s=1010.0, report={"finishedAt": "2030-01-01T00:00:00Z", "inferenceSeconds": 6.0})
    energy = metered.settlement.measure(pod, 0.0, 1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(600, rel=0.01)


def test_a_pod_that_never_ran_leaves_no_trace() -> None:
    metered = Metered()
    metered.sample_until(1015)
    pod = bound(name="x", uid="uid-x", task_uid="task-x")
    metered.settlement.begin(pod, 0.0, 1004.0)
    metered.settlement.end(pod, 1008.0)
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, 0.0, 1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(600, rel=0.01)


def test_foreign_requests_have_their_share() -> None:
    metered = Metered()
    metered.sample_until(1015)
    metered.foreign.see("n", 1.0, 1000.0)
    metered.foreign.see("n", 0.0, 1007.0)
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, 0.0, 1020.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(3 * 50 + 3 * 100)


def test_a_task_on_a_board_that_reports_only_its_power_is_measured() -> None:
    metered = Metered(idle_w=None)
    metered.meter.gauges.merge(
        "n", "board", [(time_s, 15.0 if 1004 < time_s <= 1010 else 5.0) for time_s in range(900, 1031, 5)], 1030.0
    )
    metered.run(OWN)
    energy = metered.settlement.measure(OWN, 0.0, 1030.0)
    assert energy is not None
    assert energy.energy_j == pytest.approx(6 * 15.0)


def test_nothing_is_kept_of_a_node_that_gets_no_more_tasks() -> None:
    metered = Metered()
    metered.run(replace(run_of("old", 1000.0, 1010.0), node="gone"))
    for number in range(3):
        metered.run(run_of(str(number), 2000.0 + number, 2010.0 + number), now_s=2020.0 + number)
    assert list(metered.settlement._spans) == ["n"]
    assert list(metered.settlement._nodes) == ["uid-0", "uid-1", "uid-2"]
