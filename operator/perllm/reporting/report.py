"""What a report of a cluster says, as figures."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

from perllm.energy.bill import BY_NAMESPACE
from perllm.reporting.bill import Bill, read_bill
from perllm.reporting.increases import Increases, Past
from perllm.reporting.saving import Saving, read_saving

Z95 = 1.96
_CHANCE = re.compile(r"(\d{1,3}(?:\.\d+)?)-(\d{1,3}(?:\.\d+)?)", re.ASCII)
"""As the operator writes it in percent; rules of Prometheus may drop or replace any label."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node did.

    Attributes:
        node: its name.
        tier: edge or cloud; empty if no task ran there.
        gpu: its GPU type; empty if no task ran there.
        met: tasks that met their deadline.
        missed: tasks that missed it.
        seconds: of the tasks that succeeded, by part: queue, transfer, inference, other.
        measured_j: joules that it was measured to use.
        parts_j: of them those of tasks, foreign requests and the idle node.
        transmission_j: estimated joules of moving payloads to it.
    """

    node: str
    tier: str
    gpu: str
    met: float
    missed: float
    seconds: dict[str, float]
    measured_j: float
    parts_j: dict[str, float]
    transmission_j: float

    @property
    def tasks(self) -> float:
        """Tasks that ended there."""
        return self.met + self.missed

    @property
    def unattributed_j(self) -> float:
        """Measured joules that nothing is known of."""
        return self.measured_j - sum(self.parts_j.values())


@dataclass(frozen=True, slots=True)
class Promise:
    """Tasks that were promised a chance to be in time, in percent, and how many were."""

    least: float
    most: float
    met: float
    tasks: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that was in time, in percent (Wilson's)."""
        share, count = self.met / self.tasks, self.tasks
        middle = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
        reach = Z95 * sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2)) / (1 + Z95**2 / count)
        return 100 * (middle - reach), 100 * (middle + reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report of a cluster.

    Attributes:
        bill: by namespace.
        saved_j: joules saved against the plain kube-scheduler; None if nothing was compared.
        saved_deadlines: deadlines met more than with it.
        shadowed: pods of other schedulers that shadow mode compared.
        nodes: the nodes, the busiest first.
        promises: by chance, the least first.
        missed: tasks that did not meet their deadline, by phase and reason.
        exclusions: nodes that were excluded at placements, by reason.
        placed: placements.
    """

    bill: Bill
    saved_j: Saving | None
    saved_deadlines: Saving | None
    shadowed: float
    nodes: tuple[NodeReport, ...]
    promises: tuple[Promise, ...]
    missed: dict[tuple[str, str], float]
    exclusions: dict[str, float]
    placed: float

    @property
    def met(self) -> float:
        """Deadlines that were met."""
        return sum(line.met for line in self.bill.lines)

    @property
    def judged(self) -> float:
        """Deadlines that were met or missed."""
        return sum(line.judged for line in self.bill.lines)


async def read_report(past: Past) -> Report:
    """Return the report of a period.

    Raises:
        TelemetryError, ApiError: Prometheus does not answer.
    """
    missed = await past.read_increases("perllm_deadlines_missed")
    exclusions = await past.read_increases("perllm_nodes_excluded")
    return Report(
        bill=await read_bill(past, BY_NAMESPACE),
        saved_j=await read_saving(past, "joules"),
        saved_deadlines=await read_saving(past, "deadlines"),
        shadowed=(await past.read_increases("perllm_shadowed_pods")).total(),
        nodes=await _read_nodes(past),
        promises=_read_promises(await past.read_increases("perllm_promises")),
        missed=_rank(
            {
                (phase, reason): tasks
                for phase in missed.sum_by("phase")
                for reason, tasks in missed.sum_by("reason", phase=phase).items()
            }
        ),
        exclusions=_rank(exclusions.sum_by("reason")),
        placed=(await past.read_increases("perllm_decisions")).total(),
    )


async def _read_nodes(past: Past) -> tuple[NodeReport, ...]:
    tasks = await past.read_increases("perllm_node_tasks")
    seconds = await past.read_increases("perllm_node_task_seconds")
    measured = await past.read_increases("perllm_node_energy_joules")
    parts = await past.read_increases("perllm_node_energy_part_joules")
    transmission = await past.read_increases("perllm_node_transmission_joules")
    about = {one.labels.get("node", ""): one.labels for one in tasks}
    nodes = [
        NodeReport(
            node=node,
            tier=about.get(node, {}).get("tier", ""),
            gpu=about.get(node, {}).get("gpu", ""),
            met=tasks.total(node=node, met="true"),
            missed=tasks.total(node=node, met="false"),
            seconds=seconds.sum_by("part", node=node),
            measured_j=measured.total(node=node),
            parts_j=parts.sum_by("part", node=node),
            transmission_j=transmission.total(node=node),
        )
        for node in sorted(about.keys() | measured.sum_by("node").keys())
    ]
    return tuple(sorted(nodes, key=lambda one: (-one.tasks, one.node)))


def add_up(nodes: Iterable[NodeReport]) -> NodeReport:
    """Return the sums over nodes, as of one that is called all nodes."""
    listed = tuple(nodes)
    return NodeReport(
        node="all nodes",
        tier="",
        gpu="",
        met=sum(one.met for one in listed),
        missed=sum(one.missed for one in listed),
        seconds=_merge(one.seconds for one in listed),
        measured_j=sum(one.measured_j for one in listed),
        parts_j=_merge(one.parts_j for one in listed),
        transmission_j=sum(one.transmission_j for one in listed),
    )


def _merge(sums: Iterable[dict[str, float]]) -> dict[str, float]:
    merged = Counter[str]()
    for one in sums:
        merged.update(one)
    return dict(merged)


def _read_promises(promises: Increases) -> tuple[Promise, ...]:
    found = []
    for chance, tasks in promises.sum_by("chance").items():
        bounds = _CHANCE.fullmatch(chance)
        if tasks and bounds:
            met = promises.total(chance=chance, met="true")
            found.append(Promise(float(bounds[1]), float(bounds[2]), met, tasks))
    return tuple(sorted(found, key=lambda one: one.least))


def _rank(counts: dict[_Key, float]) -> dict[_Key, float]:
    """Return what is more than 0, the greatest first."""
    return {key: count for key, count in sorted(counts.items(), key=lambda item: -item[1]) if count}
