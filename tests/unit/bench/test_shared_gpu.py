from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.gpu_laws.shapes import SHAPES
from bench.gpu_laws.shared_laws import compare
from bench.gpu_laws.shared_loads import Load, Mark, Order, Span, describe_passes, divide, repeat
from bench.gpu_laws.shared_plan import PLAN, SMOKE

LARGE, SMALL = Load("llama-8b", tasks=8), Load("llama-1b", tasks=8)
PASS_S = 0.1
WINDOW = (10.0, 11.0)


class Gpu:
    """A GPU whose every pass takes as long, in a time that passes while it is waited for."""

    def __init__(self) -> None:
        self.now_s = WINDOW[0] - 0.5
        self.free_s = 0.0
        self.most_queued = 0
        self._queued = 0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s

    def launch(self) -> Mark:
        gpu = self
        gpu.free_s = max(gpu.free_s, gpu.now_s) + PASS_S
        gpu._queued += 1
        gpu.most_queued = max(gpu.most_queued, gpu._queued)
        done_s = gpu.free_s

        class _Mark:
            def synchronize(self) -> None:
                gpu.now_s = max(gpu.now_s, done_s)
                gpu._queued -= 1

        return _Mark()


@pytest.fixture
def follow() -> Callable[[Order], tuple[list[Span], Gpu]]:
    def run(order: Order) -> tuple[list[Span], Gpu]:
        gpu = Gpu()
        return repeat(order, WINDOW, launch=gpu.launch, clock=gpu.clock, sleep=gpu.sleep), gpu

    return run


def test_passes_follow_each_other_from_the_beginning_of_the_window(follow: Callable) -> None:
    spans, gpu = follow(Order(LARGE))
    assert spans[0] == pytest.approx((10.0, 10.1))
    assert describe_passes(LARGE, spans, WINDOW)["pass_s"] == pytest.approx(PASS_S)
    assert gpu.most_queued == 1


def test_a_load_with_pauses_is_busy_for_its_share_of_the_time(follow: Callable) -> None:
    load = replace(LARGE, duty=0.4, burst=2)
    assert load.find_period_s(PASS_S) == pytest.approx(0.5)
    spans, _ = follow(Order(load, load.find_period_s(PASS_S)))
    assert [begin_s for begin_s, _ in spans] == pytest.approx([10.0, 10.1, 10.5, 10.6])
    assert describe_passes(load, spans, WINDOW)["passes_per_s"] * PASS_S == pytest.approx(0.4)


def test_passes_that_are_launched_ahead_count_from_end_to_end(follow: Callable) -> None:
    load = replace(LARGE, ahead=4)
    spans, gpu = follow(Order(load))
    assert gpu.most_queued == 4
    assert describe_passes(load, spans, WINDOW)["pass_s"] == pytest.approx(PASS_S)


def test_a_gap_of_the_server_is_no_part_of_its_passes(follow: Callable) -> None:
    load = replace(LARGE, gap_s=0.1)
    spans, _ = follow(Order(load))
    found = describe_passes(load, spans, WINDOW)
    assert (found["pass_s"], found["passes_per_s"]) == pytest.approx((PASS_S, 5.0))


def test_equal_loads_go_to_different_processes() -> None:
    assert divide([("llama-1b",), ("llama-8b", "llama-1b")], [LARGE, SMALL, SMALL]) == [[1], [0, 2]]


def test_what_loads_cost_each_other_is_compared_with_each_of_them_alone() -> None:
    def row(loads: dict[Load, float], power_w: float) -> dict:
        passes = [{"pass_s": pass_s, "passes_per_s": 1.0 / pass_s} for pass_s in loads.values()]
        return {"loads": list(loads), "passes": passes, "power_w": power_w}

    more = replace(LARGE, tasks=16)
    both = row({LARGE: 0.020, SMALL: 0.005}, 410.0)
    rows = [row({LARGE: 0.008}, 440.0), row({more: 0.009}, 460.0), row({SMALL: 0.002}, 360.0), both]
    large, small = compare(both, rows)
    assert (large["times"], large["slices"], large["turns"]) == pytest.approx((2.5, 2.0, 1.25))
    assert large["batch"] == pytest.approx(0.009 / 0.008)
    assert (large["busy"], small["busy"], small["watts"]) == pytest.approx((0.4, 0.4, 400.0))
    assert compare(both, [both]) == []


def test_each_planned_load_has_a_process_and_was_measured_alone_before() -> None:
    for plan in (PLAN, SMOKE):
        alone = set[tuple[str, int, int]]()
        for stage in plan:
            for loads in stage.points:
                assert sum(map(len, divide(stage.processes, loads))) == len(loads)
                assert all(load.shape in SHAPES for load in loads)
                if loads == (Load(*loads[0].work),):
                    alone.add(loads[0].work)
                assert alone.issuperset(load.work for load in loads)
