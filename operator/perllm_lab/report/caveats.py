"""What the runs at one load cannot support: they are too few or too short."""

from collections.abc import Sequence

from perllm_lab.report.digest import RunDigest

MIN_SEEDS = 5
MIN_TASKS = 19_000
MIN_DEADLINES = 20.0
"""A queue takes some deadlines to reach its level, and some more until what happens by chance is evened out."""


def list_caveats(runs: Sequence[RunDigest]) -> list[str]:
    """Return what is wrong with the runs of all policies at one load, in words; nothing where they are enough."""
    return [*_judge_seeds(runs), *_judge_length(runs)]


def _judge_seeds(runs: Sequence[RunDigest]) -> list[str]:
    counts = {policy: sum(run.policy == policy for run in runs) for policy in {run.policy for run in runs}}
    fewest = min(counts.values())
    if fewest >= MIN_SEEDS:
        return []
    return [f"too few seeds: {fewest}; at least {MIN_SEEDS} are needed"]


def _judge_length(runs: Sequence[RunDigest]) -> list[str]:
    shortest = min(runs, key=lambda run: (run.tasks, run.measures.window_deadlines))
    deadlines = min(run.measures.window_deadlines for run in runs)
    if shortest.tasks >= MIN_TASKS or deadlines >= MIN_DEADLINES:
        return []
    return [
        f"too short: {shortest.tasks:,} tasks and {deadlines:.1f} mean deadlines after the warm-up; at least "
        f"{MIN_TASKS:,} tasks or {MIN_DEADLINES:g} deadlines are needed"
    ]
