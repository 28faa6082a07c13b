"""The results document: everything that was measured, as JSON in the shape of `perllm_lab.report.schema`.

All of it but `timing` is the same to the last bit whenever the same runs are repeated, in any order.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perllm_lab.report.caveats import list_caveats
from perllm_lab.report.curves import QUANTILES, find_regret, learn_curve
from perllm_lab.report.digest import RunDigest
from perllm_lab.report.forecasts import Reliability
from perllm_lab.report.measures import GroupMeasures, Measures
from perllm_lab.report.metrics import COMPARED, METRICS, TIMINGS, Measure, figures
from perllm_lab.report.numbers import exact
from perllm_lab.report.schema import SCHEMA_VERSION, Document
from perllm_lab.report.statistics import estimate, paired_ratio
from perllm_lab.simulator.result import Floats

CLAIRVOYANT = "clairvoyant"
# Shares by node say little about a large fleet, and would be most of the document.
MAX_NODES = 100
CURVE_DIGITS = 6
LEAST_SHARE = 0.05
"""Of a policy with less in time, a ratio would say how near to nothing that is."""


Json = dict[str, Any]
BySeed = Mapping[int, float | None]
Grid = Mapping[tuple[str, float], Mapping[int, RunDigest]]
"""Runs by policy and load, and by seed."""


def build_document(
    results: Sequence[RunDigest],
    setting: Mapping[str, object],
    *,
    capacity: Mapping[str, float] | None = None,
    limits: Mapping[tuple[float, int], Mapping[str, float]] | None = None,
) -> Json:
    """Return the document of all runs of one scenario.

    Args:
        results: one run per policy, load and seed, in any order; seeds may be missing.
        setting: what was run, for people; JSON values.
        capacity: tasks per second of the "fleet", which loads are shares of, and of each tier.
        limits: what capacity allows at most, by load and seed: figures by name, where they were computed.

    Raises:
        ValueError: there are no runs, or runs of several scenarios, or one run twice.
    """
    grid = _arrange(results)
    seeds = sorted({run.seed for run in results})
    loads = sorted({run.load for run in results})
    reference = _reference(policy for policy, _ in grid)
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": results[0].scenario,
        "setting": dict(setting),
        "loads": loads,
        "seeds": seeds,
        "reference": reference,
        "units": {name: _describe(metric) for name, metric in {**METRICS, **TIMINGS}.items()},
        "capacity": dict(capacity or {}),
        "limits": _spread_limits(limits or {}, seeds),
        "workload": {load_key(load): _workload(_runs_at(grid, load), seeds) for load in loads},
        "caveats": {load_key(load): list_caveats(_runs_at(grid, load)) for load in loads},
        **_build_sections(grid, seeds, reference),
    }
    return Document.model_validate(document).model_dump(mode="json")


def load_key(load: float) -> str:
    """Return the key of a load in the document."""
    return exact(load)


def _build_sections(grid: Grid, seeds: Sequence[int], reference: str | None) -> Json:
    """Return the sections that have content by policy and load."""
    measured = {key: {seed: run.measures for seed, run in runs.items()} for key, runs in grid.items()}
    sections: dict[str, dict[str, Json]] = defaultdict(lambda: defaultdict(dict))
    for (policy, load), runs in grid.items():
        cell = list(measured[policy, load].items())
        others = {other: measured[other, at] for other, at in grid if at == load and other != policy}
        for section, content in {
            "policies": _spread_figures(cell, seeds, METRICS, figures),
            "tiers": _groups({seed: found.tiers for seed, found in cell}, seeds),
            "gpu_types": _groups({seed: found.gpu_types for seed, found in cell}, seeds),
            "nodes": _mean_shares([found.nodes for _, found in cell]),
            "curves": _curves(runs, grid.get((reference or "", load), {})),
            "comparisons": {other: _compare(dict(cell), found) for other, found in others.items()},
            "timing": _spread_figures(cell, seeds, TIMINGS, _timings),
        }.items():
            sections[section][policy][load_key(load)] = content
    return sections


def _arrange(results: Sequence[RunDigest]) -> Grid:
    if not results:
        raise ValueError("there are no runs to report")
    if len(scenarios := {run.scenario for run in results}) > 1:
        raise ValueError(f"runs of several scenarios: {', '.join(sorted(scenarios))}; build one document for each")
    grid: dict[tuple[str, float], dict[int, RunDigest]] = defaultdict(dict)
    for run in sorted(results, key=lambda run: (run.policy, run.load, run.seed)):
        cell = grid[run.policy, run.load]
        if run.seed in cell:
            raise ValueError(f"{run.policy} at load {run.load:g} with seed {run.seed} is there twice")
        cell[run.seed] = run
    return dict(grid)


def _reference(policies: Iterable[str]) -> str | None:
    """Return the name of the clairvoyant policy, if it was run."""
    return min((name for name in policies if name.split("+")[0] == CLAIRVOYANT), default=None)


def _spread(values: BySeed, seeds: Sequence[int]) -> Json:
    found = estimate(list(values.values()))
    ends = (None, None, None) if found is None else (found.mean, found.low, found.high)
    return {**dict(zip(("mean", "low", "high"), ends, strict=True)), "seeds": [values.get(seed) for seed in seeds]}


def _spread_figures(
    cell: Sequence[tuple[int, Measures]],
    seeds: Sequence[int],
    metrics: Mapping[str, Measure],
    read: Callable[[Measures], Mapping[str, float | None]],
) -> Json:
    values = [(seed, read(found)) for seed, found in cell]
    return {name: _spread({seed: row[name] for seed, row in values}, seeds) for name in metrics}


def _timings(measures: Measures) -> dict[str, float | None]:
    return {name: getattr(measures, name) for name in TIMINGS}


def _groups(by_seed: Mapping[int, Mapping[str, GroupMeasures]], seeds: Sequence[int]) -> Json:
    names = sorted({name for groups in by_seed.values() for name in groups})
    fields = ("placed_share", "tasks", "hits", "energy_j", "first_placed_s", "first_hit_share")
    return {
        name: {
            field: _spread(
                {seed: getattr(found[name], field) for seed, found in by_seed.items() if name in found}, seeds
            )
            for field in fields
        }
        for name in names
    }


def _mean_shares(cells: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for cell in cells for name in cell})
    if len(names) > MAX_NODES:
        return {}
    return {name: sum(cell.get(name, 0.0) for cell in cells) / len(cells) for name in names}


def _curves(runs: Mapping[int, RunDigest], reference: Mapping[int, RunDigest]) -> Json:
    learned = [learn_curve(run.block_hits, run.tasks) for run in runs.values()]
    regrets = [_find_regret(run, reference[seed]) for seed, run in runs.items() if seed in reference]
    known = [np.asarray(run.latency_s) for run in runs.values() if run.latency_s is not None]
    x = min((found.tasks for found in learned), key=len)
    return {
        "block_hit_share": _curve(x, [found.block_share for found in learned]),
        "cumulative_hit_share": _curve(x, [found.cumulative_share for found in learned]),
        "regret": _curve(x, regrets) if regrets else None,
        "latency_s": _curve(np.asarray(QUANTILES), known) if len(known) == len(runs) else None,
        "reliability": _pool([run.measures.forecasts.reliability for run in runs.values()]),
    }


def _find_regret(run: RunDigest, reference: RunDigest) -> Floats:
    if run.arrivals != reference.arrivals:
        raise ValueError(
            f"{run.policy} and {reference.policy} did not see the same tasks: compare the same seed and load"
        )
    return find_regret(run.block_hits, reference.block_hits)


def _curve(x: Floats, rows: Sequence[Floats]) -> Json:
    """Return the mean line of all seeds, as long as the shortest."""
    points = min(len(x), *(len(row) for row in rows))
    columns = [estimate([float(row[at]) for row in rows]) for at in range(points)]
    ends = {name: [_round(getattr(column, name, None)) for column in columns] for name in ("mean", "low", "high")}
    return {"x": [float(value) for value in x[:points]], **ends}


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{CURVE_DIGITS}g}")


def _pool(seeds: Sequence[Sequence[Reliability]]) -> list[Json]:
    bins: dict[int, list[Reliability]] = defaultdict(list)
    for found in (entry for entries in seeds for entry in entries):
        bins[min(int(found.chance * 10), 9)].append(found)
    return [_pool_bin(bins[at]) for at in sorted(bins)]


def _pool_bin(entries: Sequence[Reliability]) -> Json:
    tasks = sum(entry.tasks for entry in entries)
    chance = sum(entry.chance * entry.tasks for entry in entries) / tasks
    hit_share = sum(entry.hit_share * entry.tasks for entry in entries) / tasks
    return {"chance": min(chance, 1.0), "hit_share": min(hit_share, 1.0), "tasks": tasks}


def _compare(cell: Mapping[int, Measures], other: Mapping[int, Measures]) -> Json:
    """Return the ratios over the seeds that both have run."""
    both = [seed for seed in cell if seed in other]
    own, theirs = [figures(cell[seed]) for seed in both], [figures(other[seed]) for seed in both]
    has_hits = all((row["hit_share"] or 0.0) >= LEAST_SHARE for row in (*own, *theirs))
    ratios: Json = {}
    for name in COMPARED:
        is_stated = has_hits or name == "tokens_per_s"
        found = paired_ratio([row[name] for row in own], [row[name] for row in theirs]) if is_stated else None
        ratios[name] = {end: getattr(found, end, None) for end in ("mean", "low", "high")}
    return ratios


def _runs_at(grid: Grid, load: float) -> list[RunDigest]:
    return [run for (_, at), cell in grid.items() if at == load for run in cell.values()]


def _workload(runs: Sequence[RunDigest], seeds: Sequence[int]) -> Json:
    by_seed = {run.seed: run for run in runs}
    known = [by_seed.get(seed) for seed in seeds]
    return {
        "tasks": [run and run.tasks for run in known],
        "judged_from_task": [run and run.judged_from_task for run in known],
    }


def _spread_limits(limits: Mapping[tuple[float, int], Mapping[str, float]], seeds: Sequence[int]) -> Json:
    found: dict[str, dict[str, dict[int, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for (load, seed), figures_of in sorted(limits.items()):
        for name, value in figures_of.items():
            found[load_key(load)][name][seed] = value
    return {load: {name: _spread(values, seeds) for name, values in cells.items()} for load, cells in found.items()}


def _describe(metric: Measure) -> Json:
    return {"title": metric.title, "unit": metric.unit, "meaning": metric.meaning, "better": metric.better}
