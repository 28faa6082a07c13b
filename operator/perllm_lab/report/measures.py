"""The figures of one run.

A figure counts the tasks that arrived in the judged window and the energy of that window, unless it says otherwise.
None stands for what is undefined, such as joules per task in time where no task was in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perllm_lab.report.forecasts import ForecastMeasures, measure_forecasts
from perllm_lab.simulator.result import Fate, Floats, RunResult

LEARNING_TASKS = 500
JOINING_TASKS = 20

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """A group of nodes: a tier or a GPU type.

    Attributes:
        tasks: tasks placed there.
        placed_share: the same as a share of all placed tasks.
        hits: how many of them were in time.
        energy_j: what the nodes drew and what moving inputs to them took, joules.
        first_placed_s: when the first task of the whole run was placed there, seconds from its begin.
        first_hit_share: share in time of the first 20 placements of the whole run, or of what there is.
    """

    tasks: int
    placed_share: float | None
    hits: int
    energy_j: float
    first_placed_s: float | None
    first_hit_share: float | None


@dataclass(frozen=True, slots=True)
class Measures:
    """All figures of a run; see `perllm_lab.report.metrics` for one line and the unit of each number.

    Attributes:
        tasks: tasks that arrived in the window.
        window_s: length of the window.
        window_deadlines: the same as a multiple of the mean deadline of its tasks.
        goodput_per_s: tasks in time per second of the window.
        hit_share: share of tasks in time.
        token_hit_share: the same weighted by prompt and output tokens.
        completed_share: share of tasks that ran to their end, in time or late.
        tokens_per_s: output tokens of the completed tasks per second of the window.
        offered_tokens_per_s: output tokens of all tasks per second of the window.
        latency_p50_s: median seconds from arrival to completion of the completed tasks.
        latency_p95_s: their 95 % quantile.
        latency_p99_s: their 99 % quantile.
        fleet_energy_j: all nodes, idle ones included, and transmission.
        fleet_j_per_hit: that per task in time.
        active_j_per_hit: that without what nodes drew while they did nothing.
        transmission_j: moving the inputs of tasks that were bound in the window.
        inference_j: drawn by nodes that did something.
        idle_j: drawn by nodes that did nothing.
        explored_share: share of placed tasks that were placed to learn.
        learning_misses: tasks not in time among the first 500 of the whole run.
        settled_ratio: share in time of tasks 501 to 1000 of the whole run over that of all later ones.
        fates: tasks by fate.
        tiers: by tier.
        gpu_types: by GPU type.
        nodes: share of placed tasks by node.
        forecasts: how good the forecasts were.
        decision_p50_ms: median processor time of a decision.
        decision_p99_ms: its 99 % quantile.
        wall_s: wall-clock time of the run.
    """

    tasks: int
    window_s: float
    window_deadlines: float
    goodput_per_s: float
    hit_share: float | None
    token_hit_share: float | None
    completed_share: float | None
    tokens_per_s: float
    offered_tokens_per_s: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    fleet_energy_j: float
    fleet_j_per_hit: float | None
    active_j_per_hit: float | None
    transmission_j: float
    inference_j: float
    idle_j: float
    explored_share: float | None
    learning_misses: int
    settled_ratio: float | None
    fates: Mapping[Fate, int]
    tiers: Mapping[str, GroupMeasures]
    gpu_types: Mapping[str, GroupMeasures]
    nodes: Mapping[str, float]
    forecasts: ForecastMeasures
    decision_p50_ms: float | None
    decision_p99_ms: float | None
    wall_s: float


def measure(run: RunResult) -> Measures:
    """Return the figures of a run. Raises ValueError when its window has no length."""
    tasks, judged = run.tasks, judged_tasks(run)
    window_s = run.window_s[1] - run.window_s[0]
    if window_s <= 0:
        raise ValueError(f"{run.policy}: the judged window {run.window_s} is empty; run more tasks")
    hit, completed, placed = hits(run), judged & completions(run), judged & (tasks.node >= 0)
    latency_s = (tasks.finished_s - tasks.at_s)[completed]
    tokens = tasks.prompt_tokens + tasks.output_tokens
    transmission_j = float(_transmission_j(run).sum())
    idle_j = float(run.node_idle_j.sum())
    inference_j = float(run.node_energy_j.sum()) - idle_j
    in_time = int((judged & hit).sum())
    p50_s, p95_s, p99_s = _quantiles(latency_s, (0.5, 0.95, 0.99))
    p50_ms, p99_ms = _quantiles(run.decision_s * 1e3, (0.5, 0.99))
    return Measures(
        tasks=int(judged.sum()),
        window_s=window_s,
        window_deadlines=window_s / float(tasks.deadline_s[judged].mean()),
        goodput_per_s=in_time / window_s,
        hit_share=share(hit[judged]),
        token_hit_share=_divide(float(tokens[judged & hit].sum()), float(tokens[judged].sum())),
        completed_share=share(completed[judged]),
        tokens_per_s=float(tasks.output_tokens[completed].sum()) / window_s,
        offered_tokens_per_s=float(tasks.output_tokens[judged].sum()) / window_s,
        latency_p50_s=p50_s,
        latency_p95_s=p95_s,
        latency_p99_s=p99_s,
        fleet_energy_j=transmission_j + inference_j + idle_j,
        fleet_j_per_hit=_divide(transmission_j + inference_j + idle_j, in_time),
        active_j_per_hit=_divide(transmission_j + inference_j, in_time),
        transmission_j=transmission_j,
        inference_j=inference_j,
        idle_j=idle_j,
        explored_share=share(tasks.explored[placed]),
        learning_misses=int((~hit[:LEARNING_TASKS]).sum()),
        settled_ratio=_settled_ratio(hit),
        fates={fate: int((tasks.fate[judged] == fate).sum()) for fate in Fate},
        tiers=_by_group(run, run.tiers),
        gpu_types=_by_group(run, run.gpu_types),
        nodes=_by_node(run, placed),
        forecasts=measure_forecasts(tasks, judged),
        decision_p50_ms=p50_ms,
        decision_p99_ms=p99_ms,
        wall_s=run.wall_s,
    )


def judged_tasks(run: RunResult) -> Mask:
    """Return which tasks arrived in the judged window."""
    begin_s, end_s = run.window_s
    return (run.tasks.at_s >= begin_s) & (run.tasks.at_s <= end_s)


def hits(run: RunResult) -> Mask:
    """Return which tasks were in time."""
    return np.equal(run.tasks.fate, Fate.IN_TIME)


def completions(run: RunResult) -> Mask:
    """Return which tasks ran to their end."""
    return np.isin(run.tasks.fate, (Fate.IN_TIME, Fate.LATE))


def share(flags: Mask) -> float | None:
    """Return the share of true flags; None of no flags."""
    return float(flags.mean()) if flags.size else None


def _transmission_j(run: RunResult) -> Floats:
    """Return the transmission energy per task, zero for those not bound in the window."""
    begin_s, end_s = run.window_s
    bound = (run.tasks.bound_s >= begin_s) & (run.tasks.bound_s <= end_s)
    return np.where(bound, np.nan_to_num(run.tasks.transmission_j), 0.0)


def _settled_ratio(hit: Mask) -> float | None:
    early, late = share(hit[LEARNING_TASKS : 2 * LEARNING_TASKS]), share(hit[2 * LEARNING_TASKS :])
    return None if early is None or late is None else _divide(early, late)


def _by_group(run: RunResult, names: Sequence[str]) -> dict[str, GroupMeasures]:
    groups: dict[str, GroupMeasures] = {}
    for name in sorted(set(names)):
        nodes = np.asarray([other == name for other in names])
        groups[name] = _measure_group(run, (run.tasks.node >= 0) & nodes[run.tasks.node], nodes)
    return groups


def _measure_group(run: RunResult, there: Mask, nodes: Mask) -> GroupMeasures:
    judged, hit = judged_tasks(run), hits(run)
    numbers = np.flatnonzero(there)
    first = numbers[np.argsort(run.tasks.decided_s[numbers], kind="stable")][:JOINING_TASKS]
    tasks = int((there & judged).sum())
    return GroupMeasures(
        tasks=tasks,
        placed_share=_divide(tasks, int((judged & (run.tasks.node >= 0)).sum())),
        hits=int((there & judged & hit).sum()),
        energy_j=float(run.node_energy_j[nodes].sum()) + float(_transmission_j(run)[there].sum()),
        first_placed_s=float(run.tasks.decided_s[first[0]]) if first.size else None,
        first_hit_share=share(hit[first]),
    )


def _by_node(run: RunResult, placed: Mask) -> dict[str, float]:
    counts = np.bincount(run.tasks.node[placed], minlength=len(run.nodes))
    total = max(int(counts.sum()), 1)
    return {name: int(count) / total for name, count in zip(run.nodes, counts, strict=True)}


def _divide(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _quantiles(values: Floats, at: tuple[float, ...]) -> list[float | None]:
    return np.quantile(values, at).tolist() if values.size else [None] * len(at)
