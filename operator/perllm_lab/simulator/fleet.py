"""The nodes of a run, and how it is observed and evaluated."""

from dataclasses import dataclass

from numpy.random import SeedSequence

from perllm.api.task_status import RunsAs
from perllm_lab.hardware.events import NodeChange
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.seeds import derive_seed


class SimulationError(Exception):
    """A scheduler asked for something impossible; the message says what and when."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The nodes of a run and what happens to them.

    Attributes:
        scenario: name of the scenario.
        nodes: all nodes, those that join later too.
        changes: what happens to them.
        load: offered work as a share of the capacity; seeds what is random, and is repeated in the result.
        seed: of everything random.
    """

    scenario: str
    nodes: tuple[NodeSpec, ...]
    changes: tuple[NodeChange, ...] = ()
    load: float = float("nan")
    seed: int = 0

    def derive(self, *purpose: object) -> SeedSequence:
        """Return the seed of something random in this run, the same for every policy."""
        return derive_seed(self.scenario, self.load, self.seed, *purpose)


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """How a run is observed and evaluated.

    Attributes:
        scrape_s: seconds between two readings of all nodes.
        settling_s: how long the energy of a completed task is awaited; the next reading after that shows it.
        energy_error: standard deviation of the logarithm of the error with which energy is attributed to a task; the
            mean of the factor is 1.
        edge_j_per_bit: energy of moving a bit to an edge node.
        cloud_j_per_bit: energy of moving a bit to a cloud node.
        warmup_share: share of the tasks, the first ones, that do not count.
        runs_as: whether all tasks are pod tasks, or served tasks.
    """

    scrape_s: float = 5.0
    settling_s: float = 0.0
    energy_error: float = 0.08
    edge_j_per_bit: float = 0.3e-6
    cloud_j_per_bit: float = 1.0e-6
    warmup_share: float = 0.2
    runs_as: RunsAs = RunsAs.POD

    def __post_init__(self) -> None:
        if not self.scrape_s > 0.0:
            raise ValueError(f"scrape_s must be above 0, not {self.scrape_s}")
        if not 0.0 <= self.warmup_share < 1.0:
            raise ValueError(f"warmup_share must be at least 0 and below 1, not {self.warmup_share}")

    def j_per_bit(self, tier: str) -> float:
        """Energy of moving a bit to a node of `tier`."""
        return self.cloud_j_per_bit if tier == "cloud" else self.edge_j_per_bit
