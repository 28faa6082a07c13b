"""What is kept of a run: its figures, and what its curves are drawn from; small enough to keep thousands."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from perllm_lab.report.curves import count_block_hits, latency_quantiles
from perllm_lab.report.measures import Measures, hits, judged_tasks, measure
from perllm_lab.simulator.result import RunResult


@dataclass(frozen=True, slots=True)
class RunDigest:
    """One policy, one load, one seed.

    Attributes:
        scenario: name of the scenario.
        policy: name of the policy with its deployment mode.
        load: offered work as a share of the fleet's capacity.
        seed: of everything random.
        tasks: number of tasks, warm-up included.
        judged_from_task: first task after the warm-up, counted from 1.
        arrivals: the same for runs that saw the same arrivals.
        block_hits: tasks in time of each block of the learning curve.
        latency_s: latency of completed judged tasks at the quantiles of `curves.QUANTILES`; None when none completed.
        measures: its figures.
    """

    scenario: str
    policy: str
    load: float
    seed: int
    tasks: int
    judged_from_task: int
    arrivals: str
    block_hits: tuple[int, ...]
    latency_s: tuple[float, ...] | None
    measures: Measures


def digest_run(run: RunResult) -> RunDigest:
    """Return what is kept of a run. Raises ValueError when its judged window has no length."""
    quantiles_s = latency_quantiles(run)
    return RunDigest(
        scenario=run.scenario,
        policy=run.policy,
        load=run.load,
        seed=run.seed,
        tasks=run.tasks.at_s.size,
        judged_from_task=int(np.argmax(judged_tasks(run))) + 1,
        arrivals=sha256(run.tasks.at_s.tobytes()).hexdigest(),
        block_hits=count_block_hits(hits(run)),
        latency_s=None if quantiles_s is None else tuple(quantiles_s.tolist()),
        measures=measure(run),
    )
