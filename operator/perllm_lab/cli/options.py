"""What several commands share: options, and how expected failures are shown."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click

from perllm.api.task_status import RunsAs
from perllm.cluster.client import ApiError
from perllm_lab.claim import ClaimedError
from perllm_lab.demo import SlowMachineError
from perllm_lab.figures import UnknownFigureError
from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.kubernetes.build import ToolchainError
from perllm_lab.kubernetes.process import ProcessError
from perllm_lab.policies import UnknownPolicyError
from perllm_lab.simulator.pool import ParallelError
from perllm_lab.trace_replay import TraceReplayError
from perllm_lab.workload.scenarios import scenario_names
from perllm_lab.workload.trace import TraceError

_T = TypeVar("_T")


class FiniteRange(click.FloatRange):
    """A range of numbers; nan, which is neither too small nor too large, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        return found if isfinite(found) else self.fail(f"{value} is not a finite number.", param, ctx)


DEFAULT_FOLDER = Path(".lab")
WORK = {f"{kind}s": kind for kind in RunsAs}
EXPECTED = (
    ClaimedError,
    ToolchainError,
    ProcessError,
    SlowMachineError,
    ScenarioError,
    TraceError,
    TraceReplayError,
    ApiError,
    UnknownFigureError,
    UnknownPolicyError,
    ParallelError,
    OSError,
)

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where the lab keeps its files.",
)
scenario_option = click.option(
    "--scenario", default="modern", show_default=True, help=f"{', '.join(scenario_names())}, or a YAML file."
)
speed_option = click.option(
    "--speed",
    type=FiniteRange(min=0.1, max=20),
    default=2.0,
    show_default=True,
    help="Speed of the simulated hardware, as a multiple of real time.",
)


def work_option(default: RunsAs) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option about what tasks run as."""
    return click.option(
        "--work",
        "runs_as",
        type=click.Choice(list(WORK)),
        callback=lambda _, __, name: WORK[name],
        default=f"{default}s",
        show_default=True,
        help="What tasks run as: each a pod of its own, or requests to running model servers. "
        "Published figures are of pods unless they say otherwise.",
    )


seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of stored runs; one with the same code, scenario, policy, load and seed is not repeated.",
)


def split(text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """Return the names of an option; there must be one."""
    names = split(text)
    if not names:
        raise click.BadParameter("must name at least one")
    return names


@contextmanager
def expected_failures() -> Iterator[None]:
    """Turn expected errors into one message, and Ctrl-C into an orderly end."""
    try:
        yield
    except EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt as error:
        raise click.Abort from error


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end; expected errors become one message."""
    with expected_failures():
        return asyncio.run(work)
