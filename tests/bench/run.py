"""The benchmark: ratios of one run on one machine. Progress on stderr, a table of each part on stdout."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.agent_load import measure_agent
from bench.binding import Pace, measure_binding
from bench.decision import measure_decisions
from bench.energy_errors import measure_energy
from bench.foreign import measure_foreign
from bench.latency import measure_latency
from bench.paper import measure_paper
from bench.peer import measure_peer
from bench.policy import measure_policy
from bench.savings import SCENARIOS, measure_savings
from bench.served import measure_served
from bench.simulator import measure_simulator
from bench.stalls import measure_stalls
from bench.starvation import measure_starvation
from bench.tables import Row, render
from bench.waiting import measure_waiting
from bench.watching import measure_watching
from bench.whole_loop import measure_loop
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS

PARTS = (
    "decision",
    "policy",
    "simulator",
    "waiting",
    "latency",
    "binding",
    "loop",
    "starvation",
    "stalls",
    "served",
    "agent",
    "energy",
    "foreign",
    "watching",
    "peer",
)
ON_REQUEST = ("savings", "paper")
"""Parts that take a quarter of an hour and more."""

WITHOUT_CLUSTER = {"decision", "policy", "simulator", "waiting", "savings"}
SIZES = (100, 1000)
LATENCY_NODES = (1000, 5000)
WIDTH = 160
SAVINGS_TASKS = 2000
Measurement = Callable[[], list[Row]]

SERIES_HELP = "CSV file with a figure for every half hour in column 2, for the waiting part; drawn if not given."


@click.command(help=__doc__)
@click.option(
    "--part", "parts", type=click.Choice(PARTS + ON_REQUEST), multiple=True, help="Measure only this; may be repeated."
)
@click.option("--pods", default=300, show_default=True, help="Pods in one burst of the binding part.")
@click.option("--nodes", "sizes", type=int, multiple=True, default=SIZES, help="Nodes of the binding part; repeatable.")
@click.option("--bursts-only", is_flag=True, help="Leave the backlogs of the binding part out.")
@click.option("--rounds", default=3, show_default=True, help="Turns of each contender.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the logs, in a new folder here.")
@click.option("--series", type=click.Path(path_type=Path, dir_okay=False, exists=True), help=SERIES_HELP)
@click.option("--scenario", "scenarios", default=SCENARIOS, multiple=True, help="Of the savings part; repeatable.")
@click.option("--seeds", default=20, show_default=True, help="Runs of each scenario in the savings part.")
def main(
    parts: tuple[str, ...],
    pods: int,
    sizes: tuple[int, ...],
    bursts_only: bool,
    rounds: int,
    keep: Path | None,
    series: Path | None,
    scenarios: tuple[str, ...],
    seeds: int,
) -> None:
    """Run the chosen parts, by default all but those on request."""
    console, chosen = Console(stderr=True), set(parts or PARTS)
    say = partial(_say, console)
    with _folder(keep) as folder:
        measurements = _list_without_cluster(folder, rounds, scenarios, seeds, series, say)
        if chosen - WITHOUT_CLUSTER:
            measurements |= _list_with_cluster(folder, Pace(pods, rounds, has_backlogs=not bursts_only), sizes, say)
        failed = [name for name, measure in measurements.items() if name in chosen and not _show(measure, console)]
    if failed:
        say(f"not measured, see above: {', '.join(failed)}")
        sys.exit(1)


def _list_without_cluster(
    folder: Path, rounds: int, scenarios: Sequence[str], seeds: int, series: Path | None, say: Callable[[str], None]
) -> dict[str, Measurement]:
    return {
        "decision": lambda: measure_decisions(rounds, say),
        "policy": lambda: measure_policy(say),
        "simulator": lambda: measure_simulator(folder / "simulator", say),
        "waiting": lambda: measure_waiting(say, series),
        "savings": lambda: measure_savings(say, scenarios, seeds=seeds, tasks=SAVINGS_TASKS),
    }


def _list_with_cluster(
    folder: Path, pace: Pace, sizes: Sequence[int], say: Callable[[str], None]
) -> dict[str, Measurement]:
    say("programs: built on first use, minutes")
    binaries = asyncio.run(provide(list(COMPONENTS), cache_folder=default_cache_folder()))
    measurements: dict[str, Callable[[Path], Coroutine[Any, Any, list[Row]]]] = {
        "latency": lambda place: measure_latency(LATENCY_NODES, place, say),
        "binding": lambda place: measure_binding(binaries, sizes, pace, place, say),
        "loop": lambda place: measure_loop(binaries, SIZES[0], pace.rounds, place, say),
        "starvation": lambda place: measure_starvation(binaries, place, say),
        "stalls": lambda place: measure_stalls(binaries, place, say),
        "served": lambda place: measure_served(binaries, place, say),
        "agent": lambda place: measure_agent(binaries, place, say),
        "energy": lambda place: measure_energy(binaries, place, say),
        "foreign": lambda place: measure_foreign(binaries, place, say),
        "watching": lambda place: measure_watching(binaries, place, say),
        "peer": lambda place: measure_peer(binaries, place, say),
        "paper": lambda place: measure_paper(binaries, place, say),
    }
    return {name: partial(_run, measure, folder / name) for name, measure in measurements.items()}


def _run(measure: Callable[[Path], Coroutine[Any, Any, list[Row]]], folder: Path) -> list[Row]:
    return asyncio.run(measure(folder))


def _show(measure: Measurement, console: Console) -> bool:
    """Print what a part has measured; return whether it could: the other parts are worth an hour of work."""
    try:
        rows = measure()
    except Exception:
        console.print_exception()
        return False
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=WIDTH)).print(render(rows))
    return True


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix="bench-", dir=keep.resolve()))
        return
    with tempfile.TemporaryDirectory(prefix="perllm-bench-") as name:
        yield Path(name)


if __name__ == "__main__":
    sys.exit(main())
