import math
from collections.abc import Callable

import numpy as np
import pytest

from perllm_lab.report.curves import (
    block_size,
    bound_regret,
    count_block_hits,
    find_regret,
    latency_quantiles,
    learn_curve,
)
from perllm_lab.simulator.result import Fate, RunResult

IN, LATE, REFUSED = Fate.IN_TIME, Fate.LATE, Fate.REFUSED

Builder = Callable[..., RunResult]


def test_hits_are_counted_by_block_and_the_last_one_may_be_short() -> None:
    assert count_block_hits(np.arange(250) < 120) == (100, 20, 0)


def test_learning_curve_covers_the_warm_up_and_a_short_last_block() -> None:
    found = learn_curve((0, 50, 50), tasks=250)
    assert found.tasks.tolist() == [100, 200, 250]
    assert found.block_share.tolist() == [0.0, 0.5, 1.0]
    assert found.cumulative_share.tolist() == [0.0, 0.25, 0.4]


@pytest.mark.parametrize(("tasks", "size"), [(50, 100), (10_000, 100), (10_001, 200), (19_366, 200)])
def test_blocks_are_a_hundred_at_most(tasks: int, size: int) -> None:
    assert block_size(tasks) == size


def test_regret_is_hits_behind_the_reference() -> None:
    assert find_regret((0, 1, 0, 1), (1, 1, 1, 0)).tolist() == [1, 1, 2, 1]


def test_the_bound_of_the_paper_grows_with_the_root_of_the_logarithm() -> None:
    assert bound_regret([1.0, math.e**2, math.e**8], nodes=9) == pytest.approx([0.0, 6.0, 12.0])


def test_latency_distribution_is_of_completed_tasks(build_run: Builder) -> None:
    found = latency_quantiles(build_run([IN, LATE, REFUSED], latency_s=[1.0, 3.0, 50.0]))
    assert found is not None
    assert found[-1] == 3.0
    assert latency_quantiles(build_run([REFUSED, REFUSED])) is None
