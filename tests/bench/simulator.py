"""How long the simulator takes for one policy, load and seed on one processor."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter

from bench.tables import Row

POLICY = "cs-ucb"
LOAD = "0.9"
CASES = (("modern", 19_366, 8.0), ("inventory", 20_000, 90.0))
"""Scenario, tasks, and what is expected, in seconds. 19,366 tasks are an hour of the Azure conversation trace."""


def measure_simulator(folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Return the seconds of a run, and those of the whole command, which writes the page as well."""
    return [_measure(scenario, tasks, limit_s, folder, say) for scenario, tasks, limit_s in CASES]


def _measure(scenario: str, tasks: int, limit_s: float, folder: Path, say: Callable[[str], None]) -> Row:
    say(f"simulator: {tasks} tasks on {scenario}")
    out = folder / scenario
    options = ["--scenario", scenario, "--tasks", str(tasks), "--policies", POLICY, "--load", LOAD, "--out", str(out)]
    command = [sys.executable, "-m", "perllm_lab.cli", "simulate", *options, "--seeds", "1", "--processes", "1"]
    begin_s, before_s = perf_counter(), _children_cpu_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole_s, spent_s = perf_counter() - begin_s, _children_cpu_s() - before_s
    document = json.loads((out / "results.json").read_text("utf-8"))
    run_s = document["timing"][POLICY][LOAD]["wall_s"]["mean"]
    detail = f"{tasks / run_s:.0f} tasks/s; whole command {whole_s:.1f} s, {spent_s:.1f} s of a processor"
    what = f"simulation of {tasks:,} tasks on {scenario}, {POLICY}"
    return Row(what, [run_s], "s", f"<= {limit_s:g} s", detail)


def _children_cpu_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
