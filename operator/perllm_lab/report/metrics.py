"""The figures of a results document: name, unit and meaning of each, in the order in which they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perllm_lab.report.measures import Measures
from perllm_lab.simulator.result import Fate


@dataclass(frozen=True, slots=True)
class Measure:
    """Title, unit and meaning of a figure.

    Attributes:
        title: its name for people.
        unit: of its values; "share" is between 0 and 1.
        meaning: one sentence.
        better: whether more or less of it is better; None where neither is.
    """

    title: str
    unit: str
    meaning: str
    better: Literal["more", "less"] | None = None


METRICS: Mapping[str, Measure] = {
    "goodput_per_s": Measure("goodput", "tasks/s", "Tasks in time per second of the window.", "more"),
    "hit_share": Measure("in time", "share", "Share of tasks in time.", "more"),
    "token_hit_share": Measure("tokens in time", "share", "The same weighted by prompt and output tokens.", "more"),
    "fleet_j_per_hit": Measure("fleet energy per task in time", "J", "Whole fleet, idle nodes included.", "less"),
    "active_j_per_hit": Measure("active energy per task in time", "J", "Without what idle nodes drew.", "less"),
    "latency_p50_s": Measure("latency p50", "s", "From arrival to completion, of completed tasks.", "less"),
    "latency_p95_s": Measure("latency p95", "s", "The same, 95 % quantile.", "less"),
    "latency_p99_s": Measure("latency p99", "s", "The same, 99 % quantile.", "less"),
    "tokens_per_s": Measure("tokens per second", "tokens/s", "Output tokens of completed tasks.", "more"),
    "offered_tokens_per_s": Measure("offered tokens", "tokens/s", "Output tokens of all tasks that arrived."),
    "completed_share": Measure("completed", "share", "Share of tasks that ran to their end, in time or late."),
    "fleet_energy_j": Measure("fleet energy", "J", "Nodes and transmission over the window, the three parts below."),
    "transmission_j": Measure("transmission energy", "J", "Moving the inputs of tasks bound in the window."),
    "inference_j": Measure("inference energy", "J", "Drawn by nodes that did something."),
    "idle_j": Measure("idle energy", "J", "Drawn by nodes that did nothing."),
    "tasks": Measure("tasks", "tasks", "Tasks that arrived in the window."),
    "window_s": Measure("window", "s", "Length of the judged window."),
    "window_deadlines": Measure("window in deadlines", "ratio", "The same as a multiple of the mean deadline."),
    **{
        f"tasks_{fate.name.lower()}": Measure(f"tasks {fate.name.lower().replace('_', ' ')}", "tasks", meaning)
        for fate, meaning in {
            Fate.IN_TIME: "Complete by their deadline.",
            Fate.LATE: "Complete after their deadline.",
            Fate.REFUSED: "Refused without being run.",
            Fate.DROPPED: "Dropped because their deadline passed while they waited.",
            Fate.ENDED: "Ended because their deadline passed while they ran.",
            Fate.UNFINISHED: "Not complete when the run stopped.",
        }.items()
    },
    "explored_share": Measure("explored", "share", "Share of placed tasks that were placed to learn."),
    "learning_misses": Measure(
        "misses while learning", "tasks", "Not in time among the first 500 of the whole run.", "less"
    ),
    "settled_ratio": Measure("settled", "ratio", "Share in time of tasks 501 to 1000 over that of all later ones."),
    "energy_error": Measure("energy error", "share", "Median relative error, given the realised tokens."),
    "latency_error": Measure("latency error", "share", "Median relative error, given the realised tokens."),
    "given_inside": Measure("90 % interval, tokens given", "share", "Completed tasks whose latency it held."),
    "given_below": Measure("below it", "share", "Completed tasks that were faster than it said."),
    "given_above": Measure("above it", "share", "Completed tasks that were slower than it said."),
    "latency_inside": Measure("90 % interval, before the run", "share", "Completed tasks whose latency it held."),
    "latency_below": Measure("below it", "share", "Completed tasks that were faster than it said."),
    "latency_above": Measure("above it", "share", "Completed tasks that were slower than it said."),
    "brier": Measure("Brier score", "square", "Mean square of chance to be in time less outcome, of placed tasks."),
}

TIMINGS: Mapping[str, Measure] = {
    "decision_p50_ms": Measure("decision p50", "ms", "Processor time of a decision."),
    "decision_p99_ms": Measure("decision p99", "ms", "The same, 99 % quantile."),
    "wall_s": Measure("run", "s", "Wall-clock time of the whole run."),
}

COMPARED = ("goodput_per_s", "hit_share", "token_hit_share", "tokens_per_s", "fleet_j_per_hit", "active_j_per_hit")


def figures(measures: Measures) -> dict[str, float | None]:
    """Return every figure of `METRICS` by name."""
    forecasts = measures.forecasts
    derived: dict[str, float | None] = {
        **{f"tasks_{fate.name.lower()}": count for fate, count in measures.fates.items()},
        "energy_error": forecasts.energy_error,
        "latency_error": forecasts.latency_error,
        "brier": forecasts.brier,
    }
    for name, coverage in (("given", forecasts.given_coverage), ("latency", forecasts.latency_coverage)):
        for part in ("inside", "below", "above"):
            derived[f"{name}_{part}"] = None if coverage is None else getattr(coverage, part)
    return {name: derived[name] if name in derived else getattr(measures, name) for name in METRICS}
