"""The parameters to try for a policy, and the choice of the best ones: the part of tuning that runs nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from types import MappingProxyType
from typing import Any

from perllm.policy import table
from perllm_lab.baselines.fineinfer import FineInfer
from perllm_lab.baselines.rewardless_guidance import RewardlessGuidance
from perllm_lab.baselines.tuned import Tuned
from perllm_lab.policies import DEPLOYMENTS
from perllm_lab.report.measures import measure
from perllm_lab.simulator.result import RunResult

FINALISTS = 3
"""How many candidates are run at all loads, the default among them."""

TIE = 0.005
"""Shares in time closer than this count as equal, because a run is not more accurate: energy decides."""

GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        table.NAME: {"constraint_weight": (0.5, 1.0, 2.0), "exploration": (0.1, 0.03, 0.3), "penalty_weight": (1.0,)},
        FineInfer.name: {"risk": (2.0, 1.0, 4.0)},
        RewardlessGuidance.name: {"curiosity": (0.5, 0.1, 2.0)},
    }
)
"""The values to try for each policy; the first of each parameter is its default."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Parameters of a policy, named with its deployment mode, for a scenario."""

    policy: str
    scenario: str
    parameters: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"{self.policy} in {self.scenario}, {self.describe()}"

    def describe(self) -> str:
        """Return the parameters for people."""
        return ", ".join(f"{name} {value:g}" for name, value in self.parameters)


@dataclass(frozen=True, slots=True)
class Score:
    """The result of runs: judged tasks, those of them in time, and the energy of the whole fleet."""

    tasks: int = 0
    hits: float = 0.0
    energy_j: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.tasks + other.tasks, self.hits + other.hits, self.energy_j + other.energy_j)

    @property
    def hit_share(self) -> float:
        """Share of tasks in time."""
        return self.hits / max(self.tasks, 1)

    @property
    def j_per_hit(self) -> float:
        """Joules of the fleet per task in time."""
        return self.energy_j / self.hits if self.hits else inf


def score_run(run: RunResult) -> Score:
    """Return the score of a run, by its judged tasks."""
    measures = measure(run)
    return Score(measures.tasks, (measures.hit_share or 0.0) * measures.tasks, measures.fleet_energy_j)


Scores = Mapping[Candidate, Score]


def list_candidates(policies: Sequence[str], scenarios: Sequence[str]) -> list[Candidate]:
    """Return every point of the grids of these policies, in every deployment mode; the defaults first."""
    return [
        Candidate(policy + mode, scenario, tuple(zip(GRIDS[policy], values, strict=True)))
        for scenario, policy, mode in product(scenarios, (name for name in policies if name in GRIDS), DEPLOYMENTS)
        for values in product(*GRIDS[policy].values())
    ]


def group_candidates(scores: Scores) -> list[list[Candidate]]:
    """Return the candidates of each policy and scenario, in their order, so the default first."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in scores:
        groups.setdefault((candidate.policy, candidate.scenario), []).append(candidate)
    return list(groups.values())


def pick_finalists(scores: Scores) -> list[Candidate]:
    """Return the finalists: of each policy and scenario the default, to compare with, and the best others."""
    finalists = []
    for default, *others in group_candidates(scores):
        finalists += [default, *sorted(others, key=lambda each: -scores[each].hit_share)[: FINALISTS - 1]]
    return finalists


def choose_candidates(scores: Scores) -> list[Candidate]:
    """Return the best of each policy and scenario: most tasks in time; in a tie, least energy."""
    chosen = []
    for group in group_candidates(scores):
        most = max(scores[candidate].hit_share for candidate in group)
        near = [candidate for candidate in group if scores[candidate].hit_share >= most - TIE]
        chosen.append(min(near, key=lambda candidate: scores[candidate].j_per_hit))
    return chosen


def merge_chosen(before: Tuned, chosen: Sequence[Candidate]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the tuned parameters updated with the chosen candidates; the others stay."""
    merged = {policy: dict(scenarios) for policy, scenarios in before.items()}
    for candidate in chosen:
        merged.setdefault(candidate.policy, {})[candidate.scenario] = dict(candidate.parameters)
    return merged
