"""Both estimators against samples whose truth is known."""

import numpy as np
import pytest

from perllm.placement.saved_deadlines import DeadlineComparison, compare_deadlines
from perllm.placement.saved_joules import EnergyComparison, compare_joules
from perllm.placement.savings import BLOCK, Excess, RunningExcess

MEAN_J = 35.0
"""Of what the other choice takes more: half of the tasks 100 J, 15 % of them 100 J less."""


def draw(seed: int, count: int, *, bias: float = 1.0, spread: float = 0.1) -> list[EnergyComparison]:
    """Return tasks that ran on an edge node or a cloud node; other choices are mostly for the cloud.

    The laws are off by the factor `bias` on both, and each task by its own `spread`.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        size_j, is_edge, is_other_edge = rng.uniform(50.0, 150.0), rng.random() < 0.5, rng.random() < 0.3
        real, cost = ("T4", 1.0) if is_edge else ("A100", 2.0)
        other, other_cost = ("T4", 1.0) if is_other_edge and not is_edge else ("A100", 2.0)
        drawn.append(
            EnergyComparison(
                observed_j=size_j * cost * np.exp(rng.normal(0, spread)),
                expected_j=size_j * cost * bias,
                other_expected_j=size_j * other_cost * bias,
                gpu_type=real,
                other_gpu_type=other,
                is_same=other == real,
            )
        )
    return drawn


def test_an_error_that_the_laws_make_on_all_nodes_alike_does_not_matter() -> None:
    drawn, biased = draw(1, 400), draw(1, 400, bias=1.5)
    assert compare_joules(biased).total == pytest.approx(compare_joules(drawn).total, rel=1e-9)


@pytest.mark.parametrize("bias", [1.0, 0.8])
def test_the_interval_holds_the_truth_about_nine_times_in_ten(bias: float) -> None:
    found = [compare_joules(draw(seed, 200, bias=bias)) for seed in range(200)]
    held = sum(one.low <= 200 * MEAN_J <= one.high for one in found)
    assert 170 <= held <= 190


def test_the_same_node_saves_what_others_there_change_however_wrong_the_laws_are() -> None:
    """The laws give 60 J, or 30 J among more tasks; it took 90 J, so it would have taken 45 J."""
    same = EnergyComparison(
        observed_j=90.0, expected_j=60.0, other_expected_j=30.0, gpu_type="T4", other_gpu_type="T4", is_same=True
    )
    assert compare_joules([same] * 20) == Excess(pytest.approx(-20 * 45.0), 0.0, 20, 4)


def make_late(
    other_reach: float, *, error: float = 0.0, is_met: bool = True, is_same: bool = False
) -> DeadlineComparison:
    return DeadlineComparison(
        is_met=is_met, error=error, other_reach=other_reach, gpu_type="T4", other_gpu_type="T4", is_same=is_same
    )


def test_the_chance_elsewhere_is_the_share_of_tasks_that_took_so_little_longer_than_expected() -> None:
    """Errors of 0, 10, 20, 30 and 40 %: half of them are no larger than the 15 % that are left elsewhere."""
    tasks = [make_late(0.15, error=0.1 * (number % 4)) for number in range(100)]
    assert compare_deadlines(tasks).total == pytest.approx(-50.0)


def test_on_the_same_node_a_task_errs_as_it_did() -> None:
    late, in_time = (make_late(0.25, error=error, is_same=True) for error in (0.3, 0.2))
    assert compare_deadlines([late] * 10 + [in_time] * 10).total == pytest.approx(-10.0)


def test_a_task_that_was_rejected_might_have_been_in_time_elsewhere() -> None:
    rejected = DeadlineComparison(
        is_met=False, error=None, other_reach=0.15, gpu_type="", other_gpu_type="T4", is_same=False
    )
    known = [make_late(1.0, error=0.1 * (number % 2)) for number in range(20)]
    assert compare_deadlines([*known, rejected]).total == pytest.approx(1.0)


def test_what_chances_would_have_come_to_is_uncertain_even_if_all_differences_are_alike() -> None:
    tasks = [make_late(0.15, error=0.3 * (number % 2)) for number in range(100)]
    assert compare_deadlines(tasks).error >= 5.0


def test_of_too_few_tasks_no_interval_is_claimed() -> None:
    found = compare_joules(draw(0, 5))
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_tasks_of_one_busy_minute_count_as_fewer_than_independent_ones() -> None:
    """Runs of 20 tasks that err together spread the total more than the same tasks in any order."""
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.normal(0.0, 20.0, 20), 20)

    def tasks(errors: np.ndarray) -> list[EnergyComparison]:
        return [
            EnergyComparison(
                observed_j=100.0 + error,
                expected_j=100.0,
                other_expected_j=150.0,
                gpu_type="T4",
                other_gpu_type="A100",
                is_same=False,
            )
            for error in errors
        ]

    together, shuffled = (compare_joules(tasks(one)) for one in (errors, rng.permutation(errors)))
    assert together.error > 2 * shuffled.error


def test_a_tally_sums_blocks_so_that_early_errors_of_the_laws_do_not_distort_later_tasks() -> None:
    drawn = draw(3, 3 * BLOCK)
    tally = RunningExcess(compare_joules)
    for one in drawn[: 2 * BLOCK + 1]:
        tally.add(one)
    parts = compare_joules(drawn[:BLOCK]), compare_joules(drawn[BLOCK : 2 * BLOCK + 1])
    assert tally.excess == parts[0] + parts[1]
    assert tally.excess.tasks == 2 * BLOCK + 1
    assert tally.excess.high < np.inf
