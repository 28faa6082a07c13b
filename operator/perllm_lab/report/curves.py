"""Curves of a run: learning, regret, and the distribution of latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from perllm_lab.report.measures import completions, hits, judged_tasks
from perllm_lab.simulator.result import Floats, RunResult

BLOCK_TASKS = 100
MAX_BLOCKS = 100
QUANTILES = (0.01, *(at / 20 for at in range(1, 20)), 0.98, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Share of tasks in time over the whole run, warm-up included. All arrays have one entry per block.

    Attributes:
        tasks: number of tasks up to the end of the block.
        block_share: share in time of the block.
        cumulative_share: share in time of everything up to the end of the block.
    """

    tasks: Floats
    block_share: Floats
    cumulative_share: Floats


@dataclass(frozen=True, slots=True)
class RegretCurve:
    """How many fewer tasks than a reference a run had in time, over the whole run, warm-up included.

    Attributes:
        tasks: number of tasks so far, shape (points,).
        regret: tasks in time of the reference so far less those of the run, shape (points,).
    """

    tasks: Floats
    regret: Floats


def block_size(tasks: int) -> int:
    """Return tasks per block: 100, or a multiple of it that gives a hundred blocks at most."""
    return BLOCK_TASKS * max(1, -(-tasks // (BLOCK_TASKS * MAX_BLOCKS)))


def learn_curve(run: RunResult, block: int | None = None) -> LearningCurve:
    """Return the learning curve in blocks of `block` tasks; the last one may be shorter."""
    ends = _block_ends(run.tasks.at_s.size, block)
    so_far = np.concatenate(([0.0], np.cumsum(hits(run), dtype=np.float64)))[ends]
    in_block = np.diff(so_far, prepend=0.0)
    sizes = np.diff(ends, prepend=0)
    return LearningCurve(ends.astype(np.float64), in_block / sizes, so_far / ends)


def regret(run: RunResult, reference: RunResult, block: int | None = None) -> RegretCurve:
    """Return the regret of `run` against `reference`, usually the clairvoyant, at the ends of blocks.

    Raises ValueError when the two did not see the same tasks.
    """
    if not np.array_equal(run.tasks.at_s, reference.tasks.at_s):
        raise ValueError(
            f"{run.policy} and {reference.policy} did not see the same tasks: compare the same seed and load"
        )
    ends = _block_ends(run.tasks.at_s.size, block)
    difference = np.cumsum(hits(reference), dtype=np.float64) - np.cumsum(hits(run), dtype=np.float64)
    return RegretCurve(ends.astype(np.float64), difference[ends - 1])


def bound_regret(tasks: Sequence[float], nodes: int) -> list[float]:
    """Return the part of the paper's bound that is known, sqrt(2 M N ln L), for M = 1 service, after L = `tasks`.

    Reg <= sqrt(2 M N ln L) + theta P(t) (arXiv 2405.14636); in rewards, which a task in time earns about one of.
    """
    return [sqrt(2.0 * nodes * log(max(count, 1.0))) for count in tasks]


def latency_quantiles(run: RunResult) -> Floats | None:
    """Return the latency in seconds of completed judged tasks at `QUANTILES`; None when none completed."""
    chosen = judged_tasks(run) & completions(run)
    if not chosen.any():
        return None
    return np.quantile((run.tasks.finished_s - run.tasks.at_s)[chosen], QUANTILES)


def _block_ends(tasks: int, block: int | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    size = block or block_size(tasks)
    return np.append(np.arange(size, tasks, size), tasks).astype(np.int64)
