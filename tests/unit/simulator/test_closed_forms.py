import numpy as np
import pytest

from perllm_lab.hardware.link import LinkType
from perllm_lab.simulator.result import Floats, RunResult
from perllm_lab.simulator.simulation import simulate
from unit.simulator.schedulers import RoundRobin
from unit.simulator.small_fleet import SHARED, fleet, node, poisson, request

TASKS = 10_000
RATE = 0.5


def run(at_s: Floats, seconds: Floats) -> RunResult:
    return simulate(fleet(), poisson(at_s, seconds), RoundRobin())


def waits_s(result: RunResult) -> Floats:
    return result.tasks.bound_s - result.tasks.at_s


def draw_arrivals(seed: int) -> Floats:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / RATE, TASKS))


def test_random_service_waits_as_long_as_in_m_m_1() -> None:
    seconds = np.random.default_rng(1).exponential(1.0, TASKS)
    assert waits_s(run(draw_arrivals(2), seconds)).mean() == pytest.approx(RATE / (1.0 - RATE), rel=0.1)


def test_equal_service_waits_half_as_long_as_in_m_d_1() -> None:
    waited_s = waits_s(run(draw_arrivals(3), np.ones(TASKS)))
    assert waited_s.mean() == pytest.approx(RATE / (1.0 - RATE) / 2.0, rel=0.1)


def test_every_single_wait_is_that_of_lindleys_recursion() -> None:
    rng = np.random.default_rng(4)
    at_s, seconds = np.cumsum(rng.exponential(1.1, 2000)), rng.integers(1, 2000, 2000) / 1000.0
    expected, waited_s = [], 0.0
    for gap_s, service_s in zip(np.diff(at_s, append=np.inf), seconds, strict=True):
        expected.append(waited_s)
        waited_s = max(0.0, waited_s + service_s - gap_s)
    assert waits_s(run(at_s, seconds)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("law", ["equal", "exponential"])
def test_tasks_that_share_a_gpu_stay_as_long_as_in_processor_sharing_whatever_their_sizes(law: str) -> None:
    seconds = np.ones(TASKS) if law == "equal" else np.random.default_rng(5).exponential(1.0, TASKS)
    tasks = simulate(fleet(node(gpu=SHARED)), poisson(draw_arrivals(6), seconds), RoundRobin()).tasks
    assert (tasks.finished_s - tasks.at_s).mean() == pytest.approx(1.0 / (1.0 - RATE), rel=0.1)


def test_two_transfers_take_as_long_as_one_of_twice_the_size() -> None:
    slow = node(gpu=SHARED, link=LinkType(bandwidth_bps=1e6, rtt_s=0.5))

    def transferred_s(*sizes: int) -> list[float]:
        asked = [request(1.0, 1.0, input_bytes=size) for size in sizes]
        found: list[float] = simulate(fleet(slow), asked, RoundRobin()).tasks.transferred_s.tolist()
        return found

    assert transferred_s(2_000_000, 2_000_000) == pytest.approx(2 * transferred_s(4_000_000))
