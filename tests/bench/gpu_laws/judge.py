"""Compares a served load that was recorded on a GPU with what PerLLM makes of it, and with the simulated GPU.

    PYTHONPATH=tests:operator python -m bench.gpu_laws.judge FOLDER --type h100-8b

The folder has tasks.csv, passes.csv and readings.csv of `python -m bench.gpu_laws --parts load`. Needs no GPU.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.gpu_laws.attributed import COUNTER, GAUGE, attribute_energy
from bench.gpu_laws.engine import ServedTask
from bench.gpu_laws.forecasts import Foreseen, foresee, settle
from bench.gpu_laws.load_record import LoadRecord, read_record
from bench.gpu_laws.readings import count_energy_j
from bench.gpu_laws.shares import PassShares, share_passes
from bench.gpu_laws.simulated import SimulatedLoad, simulate_load
from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.gpu import GpuType

MARGIN_S = 8.0
"""Of the readings before and after each load, in which the GPU was idle."""

LEARNED_FROM = 50
"""Forecasts count once so many tasks were known."""

SCRAPES = ((COUNTER, 1.0), (COUNTER, 5.0), (GAUGE, 1.0), (GAUGE, 5.0))
LEARNS_FROM = (COUNTER, 5.0)

Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class Deviations:
    """How far figures are from the right ones.

    Attributes:
        count: Of the tasks.
        median: Of |ln (figure / right figure)|.
        p90: Its 90th percentile.
        bias: Sum of the figures over that of the right ones, minus one.
    """

    count: int
    median: float
    p90: float
    bias: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> "Deviations":
        """Compare pairs of a figure and the right one."""
        found, right = np.array(pairs).T
        sizes = abs(np.log(found / right))
        return cls(
            len(pairs), float(np.median(sizes)), float(np.quantile(sizes, 0.9)), float(found.sum() / right.sum() - 1.0)
        )


def main() -> None:
    """Print all comparisons, and write them to a file if that is asked for."""
    options = _parse()
    tables: list[Table] = []
    for record in read_record(options.folder, MARGIN_S):
        tables.extend(judge(record, CATALOGUE[options.type]))
    for table in tables:
        print("  ".join(f"{name} {_format(value)}" for name, value in table.items()))
    if options.out:
        options.out.write_text(json.dumps(tables, indent=1))


def judge(record: LoadRecord, gpu: GpuType) -> list[Table]:
    """Return all comparisons of a record."""
    shares, simulated = share_passes(record), simulate_load(record.tasks, gpu)
    every_s = LEARNS_FROM[1]
    real = foresee(settle(record.tasks, attribute_energy(record, *LEARNS_FROM).task_j, every_s), gpu)
    lab = foresee(settle(simulated.tasks, simulated.task_j, every_s), gpu)
    rows = [
        _describe(record, shares),
        *_compare_simulated(record, shares, simulated),
        *(row for where, foreseen in (("real", real), ("simulated", lab)) for row in judge_forecasts(foreseen, where)),
        *(_judge_attributed(record, shares, source, every_s) for source, every_s in SCRAPES),
    ]
    return [{"load": record.load, **row} for row in rows]


def judge_forecasts(foreseen: Sequence[Foreseen], where: str) -> list[Table]:
    """Return how far forecasts were off, and how far the laws are once it is known what a task met."""
    learned_s = sorted(one.served.known_s for one in foreseen)[LEARNED_FROM - 1]
    late = [one for one in foreseen if one.sent_s > learned_s]
    times = [(one.forecast.given_latency_s, one.latency_s) for one in late]
    joules = [(one.forecast.given_energy_j, one.served.energy_j) for one in late]
    inside = np.mean([one.forecast.given_low_s <= one.latency_s <= one.forecast.given_high_s for one in late])
    found = {
        "seconds, forecast": Deviations.of(times),
        "seconds, law": Deviations.of([(one.law_s, one.latency_s) for one in late]),
        "joules, forecast": Deviations.of(joules),
        "joules, law": Deviations.of([(one.law_j, one.served.energy_j) for one in late]),
    }
    rows: list[Table] = [{"forecasts": where, "of": name, **asdict(one)} for name, one in found.items()]
    rows[0]["in 90 % interval"] = float(inside)
    return rows


def _describe(record: LoadRecord, shares: PassShares) -> Table:
    start_s, end_s = record.window_s
    read_s = sum(one.end_s - one.start_s for one in record.passes if one.reader >= 0)
    busy_s = sum(one.end_s - one.start_s for one in record.passes)
    return {
        "measured": "",
        "tasks": len(record.tasks),
        "length_s": end_s - start_s,
        "energy_j": count_energy_j(record.readings, start_s, end_s),
        "busy": busy_s / (end_s - start_s),
        "reading": read_s / (end_s - start_s),
        "batch": float(np.mean([one.tasks for one in record.passes if one.reader < 0])),
        **{name: value for name, value in asdict(shares).items() if name != "task_j"},
    }


def _compare_simulated(record: LoadRecord, shares: PassShares, simulated: SimulatedLoad) -> list[Table]:
    """Return simulated over measured figures of each task: 10 %, 50 % and 90 % quantiles, and of the sums."""
    energy_j = count_energy_j(record.readings, *record.window_s)
    pairs = list(zip(simulated.tasks, record.tasks, strict=True))
    tasks_j = [(simulated.task_j[number], one_j) for number, one_j in shares.task_j.items()]

    def compare(name: str, figures: Sequence[tuple[float, float]]) -> Table:
        found, right = np.array(figures).T
        low, middle, high = np.quantile(found / np.maximum(right, 1e-9), (0.1, 0.5, 0.9)).tolist()
        return {"simulated": name, "p10": low, "p50": middle, "p90": high, "sum": float(found.sum() / right.sum())}

    def time(name: str, begin: str, end: str) -> Table:
        return compare(name, [(_span(one, begin, end), _span(other, begin, end)) for one, other in pairs])

    return [
        time("seconds", "arrived_s", "ended_s"),
        time("waiting and reading", "arrived_s", "first_token_s"),
        time("reading", "read_s", "first_token_s"),
        time("writing", "first_token_s", "ended_s"),
        compare("joules of a task", tasks_j),
        compare("joules of all", [(simulated.energy_j, energy_j)]),
    ]


def _span(task: ServedTask, begin: str, end: str) -> float:
    # A task of one token is complete when it has been read.
    return float(max(getattr(task, end) - getattr(task, begin), 1e-6))


def _judge_attributed(record: LoadRecord, shares: PassShares, source: str, every_s: float) -> Table:
    found = attribute_energy(record, source, every_s)
    deviations = Deviations.of([(energy_j, shares.task_j[number]) for number, energy_j in found.task_j.items()])
    return {
        "attributed": f"{source} every {every_s:g} s",
        **asdict(deviations),
        "unattributed": 1.0 - (found.tasks_j + found.idle_j) / found.measured_j,
        "idle_w": found.idle_w,
    }


def _format(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the record is")
    parser.add_argument("--type", choices=CATALOGUE, default="h100-8b", help="of the simulated GPU")
    parser.add_argument("--out", type=Path, help="file for all figures (JSON)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
