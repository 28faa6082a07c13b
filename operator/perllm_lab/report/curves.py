"""Curves of a run: learning, regret, and the distribution of latency.

The first two are drawn from the number of tasks in time in each block, over the whole run, warm-up included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from perllm_lab.report.measures import Mask, completions, judged_tasks
from perllm_lab.simulator.result import Floats, RunResult

BLOCK_TASKS = 100
MAX_BLOCKS = 100
QUANTILES = (0.01, *(at / 20 for at in range(1, 20)), 0.98, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Share of tasks in time. All arrays have one entry per block.

    Attributes:
        tasks: number of tasks up to the end of the block.
        block_share: share in time of the block.
        cumulative_share: share in time of everything up to the end of the block.
    """

    tasks: Floats
    block_share: Floats
    cumulative_share: Floats


def block_size(tasks: int) -> int:
    """Return tasks per block: 100, or a multiple of it that gives a hundred blocks at most."""
    return BLOCK_TASKS * max(1, -(-tasks // (BLOCK_TASKS * MAX_BLOCKS)))


def count_block_hits(hit: Mask) -> tuple[int, ...]:
    """Return the number of tasks in time in each block; the last one may be shorter."""
    starts = np.arange(0, hit.size, block_size(hit.size))
    counts: list[int] = np.add.reduceat(hit, starts, dtype=np.int64).tolist()
    return tuple(counts)


def learn_curve(block_hits: Sequence[int], tasks: int) -> LearningCurve:
    """Return the learning curve of a run of so many tasks."""
    ends = np.minimum(np.arange(1, len(block_hits) + 1) * block_size(tasks), tasks).astype(np.float64)
    counts = np.asarray(block_hits, dtype=np.float64)
    return LearningCurve(ends, counts / np.diff(ends, prepend=0.0), np.cumsum(counts) / ends)


def find_regret(block_hits: Sequence[int], reference: Sequence[int]) -> Floats:
    """Return how many fewer tasks than a reference a run had in time by the end of each block."""
    regret: Floats = np.cumsum(np.subtract(reference, block_hits), dtype=np.float64)
    return regret


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
