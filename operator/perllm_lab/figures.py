"""The command `perllm-lab figures`: makes all published figures, with the runs of all of them as one piece of work.

`figures.yaml` lists them: those of the headline, and everything. All are of pods, so that they can be compared with
earlier ones, and because the parameters of the baselines were tuned with pods.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from perllm.api.task_status import RunsAs
from perllm.policy import contextual
from perllm.yaml_text import read_yaml
from perllm_lab.campaign.runs import find_all_digests
from perllm_lab.policies import select_policies
from perllm_lab.report.origin import Origin
from perllm_lab.report.progress import Display
from perllm_lab.simulate import SimulateSettings, make_experiment, publish
from perllm_lab.simulator.experiment import Experiment

LIST = "figures.yaml"
CACHE = "runs"
"""Folder of the runs, in that of the figures."""


class UnknownFigureError(ValueError):
    """There is no such figure; the message lists the known ones."""


class MoreSeeds(BaseModel):
    """Policies that are run with more seeds than the others of their figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policies: tuple[str, ...]
    seeds: int


class FigureSpec(BaseModel):
    """One figure.

    Attributes:
        scenario: Scenario of the lab.
        policies: Their names, or `all`.
        loads: Offered work as shares of the capacity.
        tasks: Of a run.
        seeds: Runs of each policy and load.
        trace: Where requests come from; None for what the scenario says.
        hints: Error of the hints; None for what the scenario says.
        more_seeds: Policies with more seeds; None for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: str
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    tasks: int = 19_000
    seeds: int = Field(default=5, ge=5)
    trace: str | None = None
    hints: float | None = None
    more_seeds: MoreSeeds | None = None


class FigureList(BaseModel):
    """All figures by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    headline: Mapping[str, FigureSpec]
    everything: Mapping[str, FigureSpec]


@dataclass(frozen=True, slots=True)
class FigureSettings:
    """Options of `perllm-lab figures`.

    Attributes:
        out: folder for a folder of each figure.
        cache: folder of the runs; None for one in `out`.
        everything: whether all figures are made, and not those of the headline alone.
        only: names of figures; empty for all.
        processes: how many runs at once.
    """

    out: Path
    cache: Path | None = None
    everything: bool = False
    only: tuple[str, ...] = ()
    processes: int = 1


def load_figures() -> FigureList:
    """Returns the published figures."""
    return FigureList.model_validate(read_yaml((files(__package__) / LIST).read_text("utf-8")))


def make_figures(settings: FigureSettings, display: Display, *, today: date) -> None:
    """Makes the runs that are missing, and writes results and page of each figure.

    Raises:
        UnknownFigureError: there is no such figure.
        ParallelError: a run failed.
    """
    figures = _select(load_figures(), settings)
    parts = {name: plan_figure(figure, settings.out / name) for name, figure in figures.items()}
    for asked, _ in parts.values():
        asked.check_targets()
    experiments = [experiment for _, members in parts.values() for experiment in members]
    display.say(f"{len(figures)} figures, {sum(len(each.jobs()) for each in experiments)} runs")
    found = iter(find_all_digests(experiments, settings.cache or settings.out / CACHE, settings.processes, display))
    for name, (asked, members) in parts.items():
        runs = [run for _ in members for run in next(found)]
        display.say(f"\n{name}")
        publish(members[0], runs, asked, display, origin=Origin.of(f"perllm-lab figures --only {name}", today))


def plan_figure(figure: FigureSpec, out: Path) -> tuple[SimulateSettings, list[Experiment]]:
    """Returns a figure as a command, and the experiments whose runs it shows; they have no run in common."""
    asked = SimulateSettings(
        scenario=figure.scenario,
        policies=",".join(figure.policies),
        out=out,
        trace=figure.trace,
        seeds=figure.seeds,
        loads=figure.loads,
        tasks=figure.tasks,
        hints=figure.hints,
        runs_as=RunsAs.POD,
        subject=contextual.NAME,
    )
    experiments = [make_experiment(asked)]
    if figure.more_seeds is not None:
        policies = select_policies(",".join(figure.more_seeds.policies))
        later = tuple(range(figure.seeds, figure.more_seeds.seeds))
        experiments.append(replace(experiments[0], policies=policies, seeds=later))
    return asked, experiments


def _select(figures: FigureList, settings: FigureSettings) -> dict[str, FigureSpec]:
    known = {**figures.headline, **figures.everything}
    if unknown := [name for name in settings.only if name not in known]:
        raise UnknownFigureError(f"no figure {', '.join(unknown)}; known: {', '.join(known)}")
    if settings.only:
        return {name: known[name] for name in settings.only}
    return known if settings.everything else dict(figures.headline)
