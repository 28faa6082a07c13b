"""The scenario of the paper, with its deadlines of 2 to 6 s, on a real control plane, against the simulator's forecast.

Served tasks, which may be rejected and end with their deadline, in a lab of its own for every policy and load. The
forecast is of the same requests. A lab that the machine was too slow for is not compared.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from bench.tables import Row
from perllm.policy import contextual, table
from perllm_lab.demo import DemoSettings, SlowMachineError, make_requests, run_contender
from perllm_lab.demo_forecast import find_conditions, predict
from perllm_lab.lab_forecast import Figures, observe
from perllm_lab.report.progress import Display
from perllm_lab.workload.scenarios import load_scenario

SCENARIO = "paper"
POLICIES = (contextual.NAME, table.NAME)
LOADS = (0.6, 0.9, 1.2)
TASKS, SEED = 400, 1
WITHIN = "0.95 - 1.05"


async def measure_paper(
    binaries: Mapping[str, Path], folder: Path, say: Callable[[str], None], *, tasks: int = TASKS, speed: float = 1.0
) -> list[Row]:
    """Return tasks in time and joules as shares of the forecast, for every policy and load."""
    rows: list[Row] = []
    scenario, display = load_scenario(SCENARIO), Display(Console(stderr=True))
    for load in LOADS:
        for policy in POLICIES:
            place = folder / f"{load:g}"
            settings = DemoSettings(SCENARIO, tasks, None, load, (policy,), speed, SEED, place, strict=True)
            try:
                run = await run_contender(policy, settings, make_requests(settings, scenario), binaries, display)
            except SlowMachineError as error:
                say(f"load {load:g}, {policy}: not compared: {error}")
                continue
            conditions = find_conditions(run, speed, settings.runs_as)
            predicted = predict(policy, run, scenario, conditions, strict=settings.strict)
            seen = observe(run.runs, run.truth)
            say(f"load {load:g}, {policy}: {seen}; predicted {predicted}")
            rows += _compare(f"{SCENARIO}, load {load:g}, {policy}", seen, predicted)
    return rows


def _compare(what: str, seen: Figures, predicted: Figures) -> list[Row]:
    detail = f"seen {seen}; predicted {predicted}"
    return [
        Row(f"{what}: in time, seen per predicted", [seen.hit_share / predicted.hit_share], "x", WITHIN, detail),
        Row(f"{what}: J per task in time", [seen.energy_j / predicted.energy_j], "x", WITHIN),
    ]
