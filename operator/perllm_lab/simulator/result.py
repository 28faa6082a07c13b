"""The result of one simulated run: a row per task, the energy of the fleet, the time of every decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Fate(IntEnum):
    """How a task ended."""

    IN_TIME = 0
    LATE = 1
    REFUSED = 2
    DROPPED = 3
    ENDED = 4
    UNFINISHED = 5


@dataclass(frozen=True, slots=True)
class TaskTable:
    """All tasks of a run by number; every array has one entry per task, nan (node -1) where it never happened.

    Attributes:
        at_s: arrival.
        deadline_s: deadline, seconds from the arrival.
        prompt_tokens: tokens of the prompt.
        output_tokens: true tokens of the answer.
        fate: a `Fate`. DROPPED waited past its deadline, ENDED was running at it.
        node: position of the node in `RunResult.nodes`.
        decided_s: when its last node was chosen.
        bound_s: when the node took it.
        transferred_s: when its input had arrived.
        finished_s: when it was complete or ended.
        energy_j: its true share of the node's energy, including unfinished runs.
        transmission_j: energy of moving its input.
        runs: how often it was started on a node; more than once only after a node was lost.
        explored: whether it was placed to learn.
        forecast: `Forecast` fields by name.
    """

    at_s: Floats
    deadline_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    fate: NDArray[np.int8]
    node: NDArray[np.int64]
    decided_s: Floats
    bound_s: Floats
    transferred_s: Floats
    finished_s: Floats
    energy_j: Floats
    transmission_j: Floats
    runs: NDArray[np.int64]
    explored: NDArray[np.bool_]
    forecast: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One policy, one load, one seed.

    Attributes:
        scenario: name of the scenario.
        policy: name of the policy with its deployment mode, such as "cs-ucb-table" or "cs-ucb-table+x".
        load: offered work as a share of the fleet's capacity.
        seed: of everything random.
        nodes: names of all nodes.
        tiers: tier of each node.
        gpu_types: product of the GPU of each node.
        tasks: the tasks.
        window_s: begin and end of the judged window, from the end of the warm-up to the last arrival. Tasks count if
            they arrive in it, energy if it is used in it.
        node_energy_j: energy of each node in the window.
        node_idle_j: the part of it that was used while the node was idle.
        decision_s: CPU seconds per action, of every call that decided something.
        wall_s: wall-clock seconds of the run.
    """

    scenario: str
    policy: str
    load: float
    seed: int
    nodes: tuple[str, ...]
    tiers: tuple[str, ...]
    gpu_types: tuple[str, ...]
    tasks: TaskTable
    window_s: tuple[float, float]
    node_energy_j: Floats
    node_idle_j: Floats
    decision_s: Floats
    wall_s: float
