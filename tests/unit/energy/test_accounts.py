import asyncio
from array import array
from random import Random

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from perllm.agent.publication import FOREIGN_S
from perllm.energy.accounts import AccountMetrics, EnergyAccounts, divide_energy
from perllm.energy.attribution import IdlePower, Window, attribute, estimate_idle_power_w
from perllm.energy.bill import MAX_PAYERS, BillMetrics, Owner
from perllm.energy.devices import measure_counter
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.intervals import Intervals
from perllm.energy.meters import Meter
from perllm.energy.series import TimeSeries
from perllm.energy.settlement import Settlement, Span
from perllm.guard import Guard
from unit.controller.samples import running, succeeded
from unit.energy.simulated_node import LOADS, measure, run, sample, weigh_all

IDLE_W = 10.0


def intervals_of(*powers_w: float) -> Intervals:
    energy_j = np.concatenate([[0.0], np.cumsum(powers_w)])
    return measure_counter(TimeSeries(array("d", range(len(energy_j))), array("d", energy_j)), 1000.0)


def test_a_task_is_charged_its_idle_power_and_the_empty_node_the_rest_of_it() -> None:
    parts = divide_energy(intervals_of(10, 100, 100, 10), [Window("a", 1, 3)], [], IDLE_W)

    assert (parts.measured_j, parts.tasks_j, parts.idle_j) == pytest.approx((220, 200, 20))
    assert parts.unattributed_j == pytest.approx(0)


def test_what_an_empty_node_uses_above_its_idle_power_is_in_no_part() -> None:
    parts = divide_energy(intervals_of(10, 50, 10), [], [], IDLE_W)

    assert parts.idle_j == pytest.approx(30)
    assert parts.unattributed_j == pytest.approx(40)


def test_foreign_requests_share_the_power_with_tasks_by_weight() -> None:
    parts = divide_energy(intervals_of(100, 100), [Window("a", 0, 1)], [Window("foreign", 0, 2, 3.0)], IDLE_W)

    assert (parts.tasks_j, parts.foreign_j) == pytest.approx((25, 175))


def test_time_without_samples_is_in_no_part_and_not_measured() -> None:
    broken = Intervals(np.arange(4.0), np.array([100.0, np.nan, 100.0]))

    parts = divide_energy(broken, [Window("a", 0, 1.5)], [], IDLE_W)

    assert (parts.measured_j, parts.tasks_j, parts.idle_j) == pytest.approx((200, 100, 10))


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize(("kind", "every_s"), [("counter", 1.0), ("counter", 15.0), ("gauge", 5.0)])
def test_parts_add_up_to_what_was_measured_and_to_the_energies_of_the_tasks(
    name: str, kind: str, every_s: float
) -> None:
    tasks, _ = run(name)
    spans = [
        Span(str(index), task.start_s, task.end_s or 0.0, task.prompt, task.output) for index, task in enumerate(tasks)
    ]
    intervals, windows, idle_w = measure(spans, sample(name, kind, every_s))

    parts = divide_energy(intervals, windows, [], idle_w)
    billed = [one.energy_j for one in attribute(intervals, windows, idle_w).values() if one.energy_j is not None]

    assert idle_w == pytest.approx(LOADS[name].gpu.idle_w, rel=0.05)
    assert abs(parts.unattributed_j) < 0.02 * parts.measured_j
    assert sum(billed) == pytest.approx(parts.tasks_j, rel=0.01)


@pytest.mark.parametrize("name", LOADS)
def test_the_energy_of_foreign_requests_is_found_by_their_number(name: str) -> None:
    tasks, _ = run(name)
    own = [Span(str(index), one.start_s, one.end_s or 0.0, one.prompt, one.output) for index, one in enumerate(tasks)][
        ::2
    ]
    others = tasks[1::2]
    load = ForeignLoad(1e9)
    for time_s in np.arange(0.0, 600.0, FOREIGN_S):
        load.see("n", sum(one.start_s <= time_s < (one.end_s or 0.0) for one in others), float(time_s))
    windows = weigh_all(own)
    foreign = load.list_windows("n", sum(one.weight for one in windows) / len(windows))
    intervals = sample(name, "counter", 1.0).intervals("n")

    parts = divide_energy(intervals, windows, foreign, estimate_idle_power_w(intervals, [*windows, *foreign]))

    print(name, parts.foreign_j / sum(one.energy_j for one in others), parts.unattributed_j / parts.measured_j)
    assert parts.foreign_j == pytest.approx(sum(one.energy_j for one in others), rel=0.05)


class Kept:
    """The accounts of node n, whose counter rises by 100 W, and by 20 W before 1003 s."""

    def __init__(self) -> None:
        self.now_s = 1040.0
        meter = Meter.build("m", "gpu", 2000.0, length_s=900.0)
        powers_w = [100.0 if time_s >= 1003 else 20.0 for time_s in range(900, 1040)]
        samples = zip(range(900, 1041), np.concatenate([[0.0], np.cumsum(powers_w)]), strict=True)
        meter.counters.merge("n", "gpu", [(float(time_s), float(energy_j)) for time_s, energy_j in samples], 1040.0)
        history = EnergyHistory([meter], absent_after_s=60.0)
        self.settlement = Settlement(
            history,
            IdlePower(),
            ForeignLoad(900.0),
            count_gpus=lambda _: 1.0,
            patience_s=30.0,
            retry_s=1.0,
            window_s=900.0,
            now=lambda: self.now_s,
        )
        self.registry = CollectorRegistry()
        self.nodes = ["n"]
        self.accounts = EnergyAccounts(
            history,
            self.settlement,
            lambda: self.nodes,
            AccountMetrics(self.registry),
            BillMetrics(self.registry),
            guard=Guard(lambda _: None, Random(0)),
            window_s=900.0,
            unix_now=lambda: self.now_s,
        )

    def advance(self, now_s: float) -> float | None:
        self.now_s = now_s
        self.accounts.advance("n")
        return self.registry.get_sample_value("perllm_node_energy_joules_total", {"node": "n"})

    def billed_j(self, **labels: str) -> float | None:
        return self.registry.get_sample_value("perllm_bill_joules_total", {**labels, "part": "inference"})

    def part_j(self, part: str) -> float | None:
        return self.registry.get_sample_value("perllm_node_energy_part_joules_total", {"node": "n", "part": part})


def test_an_account_begins_when_the_node_is_first_seen_and_follows_its_samples() -> None:
    kept = Kept()

    assert kept.advance(1000.0) is None
    assert kept.advance(1004.5) == pytest.approx(4 * 20)
    assert kept.advance(1100.0) == pytest.approx(5 * 20 + 37 * 100)


def test_an_account_that_was_opened_by_a_clock_two_hours_ahead_begins_once_that_is_set_back() -> None:
    kept = Kept()
    for kept.now_s in (1000.0 + 7200.0, 1003.0):
        kept.accounts.open()

    assert kept.advance(1043.0) == pytest.approx(37 * 100)


def test_an_account_contains_tasks_that_ended_before_its_first_round() -> None:
    kept = Kept()
    kept.now_s = 1002.0
    kept.accounts.open()
    kept.settlement.end(succeeded(started_s=1003.0, finished_s=1020.0, report=None), 1021.0)

    assert kept.advance(1030.5) == pytest.approx(20 + 25 * 100, abs=100)
    assert kept.part_j("tasks") == pytest.approx(17 * 100, abs=100)


def test_an_account_waits_for_tasks_that_run_and_then_contains_them() -> None:
    kept = Kept()
    kept.advance(1000.0)
    kept.settlement.begin(running(started_s=1003.0), 0.0, 1003.0)
    assert kept.advance(1040.0) == pytest.approx(5 * 20)

    kept.settlement.end(succeeded(started_s=1003.0, finished_s=1040.0, report=None), 1041.0)
    assert kept.advance(1050.0) == pytest.approx(5 * 20 + 37 * 100)
    assert kept.part_j("tasks") == pytest.approx(37 * 100)
    assert kept.part_j("idle") == pytest.approx(5 * 20)


def test_an_account_ends_with_the_last_samples_of_a_node_that_has_left() -> None:
    kept = Kept()
    kept.now_s = 1000.0
    kept.accounts.open()
    kept.settlement.end(succeeded(started_s=1003.0, finished_s=1040.0, report=None), 1041.0, Owner("chat"))
    kept.nodes.clear()
    for kept.now_s in (1045.0, 1899.0):
        asyncio.run(kept.accounts.update())
        assert kept.part_j("tasks") == kept.billed_j(by="namespace", payer="chat") == pytest.approx(37 * 100)

    kept.now_s = 1900.0
    asyncio.run(kept.accounts.update())
    assert kept.part_j("tasks") is None


def test_payers_beyond_a_number_are_counted_together() -> None:
    registry = CollectorRegistry()
    bill = BillMetrics(registry)
    for number in range(MAX_PAYERS + 5):
        bill.charge(Owner(f"n{number}"), 1.0)
    bill.charge(Owner("n0"), 1.0)

    def billed_j(payer: str) -> float | None:
        labels = {"by": "namespace", "payer": payer, "part": "inference"}
        return registry.get_sample_value("perllm_bill_joules_total", labels)

    assert (billed_j("n0"), billed_j(f"n{MAX_PAYERS - 1}")) == (2, 1)
    assert (billed_j("other"), billed_j(f"n{MAX_PAYERS}")) == (5, None)


def test_payers_are_charged_what_the_account_says_of_their_tasks() -> None:
    kept = Kept()
    kept.advance(1000.0)
    for name, start_s, end_s, owner in (("a", 1003, 1023, Owner("chat", "red")), ("b", 1023, 1040, Owner("batch"))):
        pod = succeeded(name=name, uid=name, task_uid=name, started_s=start_s, finished_s=end_s, report=None)
        kept.settlement.end(pod, 1041.0, owner)
    kept.advance(1050.0)

    chat_j, batch_j = (kept.billed_j(by="namespace", payer=name) or 0.0 for name in ("chat", "batch"))
    assert (chat_j, batch_j) == (pytest.approx(20 * 100), pytest.approx(17 * 100))
    assert chat_j + batch_j == pytest.approx(kept.part_j("tasks"))
    assert kept.billed_j(by="label", payer="red") == chat_j
    assert kept.billed_j(by="label", payer="none") == batch_j
