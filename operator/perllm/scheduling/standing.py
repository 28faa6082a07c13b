"""Decisions that stand until their pods are bound, unless what they were made from has changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement
from perllm.placement.request import PlacementRequest

MAX_KEPT = 4096
"""Decisions kept until their pods are bound; kube-scheduler binds a few dozen at a time."""

MAX_KEPT_ARMS = 200_000
"""Nodes of all of them together, at some 400 bytes each; more only for those that are always kept."""

ALWAYS_KEPT = 128
"""Twice as many as one round of the dispatch loop makes, so that those of a round are there when it is carried out."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decision, and the versions of fleet and circuits that it was made from."""

    placement: Placement
    versions: tuple[int, int]


class StandingDecisions:
    """The latest decision about each task, by uid.

    Args:
        fleet: the nodes.
        ledger: the tasks in flight.
        circuits: of the nodes.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, circuits: Circuits) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._circuits = circuits
        self._kept: dict[str, _Kept] = {}
        self._arms = 0

    def put(self, placement: Placement) -> None:
        """Keep a decision, for which slots have just been reserved."""
        task_id = placement.request.task_id
        self.pop(task_id)
        self._kept[task_id] = _Kept(placement, self._versions())
        self._arms += len(placement.names)
        while len(self._kept) > MAX_KEPT or (self._arms > MAX_KEPT_ARMS and len(self._kept) > ALWAYS_KEPT):
            self.pop(next(iter(self._kept)))

    def pop(self, task_id: str) -> None:
        """Forget the decision about a task; unknown tasks are ignored."""
        kept = self._kept.pop(task_id, None)
        self._arms -= 0 if kept is None else len(kept.placement.names)

    def get(self, task_id: str) -> Placement | None:
        """Return the decision about a task, whether it stands or not."""
        kept = self._kept.get(task_id)
        return None if kept is None else kept.placement

    def find(self, request: PlacementRequest, candidates: Sequence[str]) -> Placement | None:
        """Return the decision about a task if it stands.

        It does while the request is the same, its slots are reserved, its node is a candidate, and neither a node nor a
        circuit has changed.
        """
        kept = self._kept.get(request.task_id)
        if kept is None or kept.placement.request != request or request.task_id not in self._ledger:
            return None
        is_unchanged = kept.versions == self._versions() and kept.placement.node in candidates
        return kept.placement if is_unchanged else None

    def _versions(self) -> tuple[int, int]:
        return self._fleet.version, self._circuits.version
