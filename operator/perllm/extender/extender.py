"""Answers kube-scheduler: which nodes can take a pod, which is best, and the binding itself.

Filter answers with the decision that the pod was created on, or with a new one if that no longer stands; Prioritize
repeats it, but is not asked where Filter left one node; Bind carries it out, with the decision record in the same
transaction. They work in memory; only the binding goes to the API server.
"""

import logging
from collections.abc import Callable
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm.extender.protocol import (
    Answer,
    Unplaceable,
    binding_answer,
    filter_answer,
    filter_error,
    priorities,
    unplaceable_answer,
)
from perllm.extender.retries import Retries
from perllm.placement.flight import Flight
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement
from perllm.placement.request import PlacementRequest
from perllm.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)

MAX_REMEMBERED = 4096
"""Pods between filter and bind; kube-scheduler binds a few dozen at a time."""

MAX_REMEMBERED_ARMS = 200_000
"""Nodes of all their placements together, at some 200 bytes each."""


class Extender:
    """The three verbs.

    Args:
        scheduler: decides.
        ledger: the tasks in flight.
        client: binds pods.
        request_of: returns what a pod asks of placement; None while its task is not known.
        retries: have kube-scheduler retry the pods that got no node.
        note_bound: called with the uid of a pod, the node and the decision record before it is bound.
        note_denied: called with the uid of a pod if the API server denies the binding.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        client: Client,
        *,
        request_of: Callable[[Object], PlacementRequest | Unplaceable | None],
        retries: Retries,
        note_bound: Callable[[str, str, str], None],
        note_denied: Callable[[str], None],
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._client = client
        self._request_of = request_of
        self._retries = retries
        self._note_bound = note_bound
        self._note_denied = note_denied
        self._placements: dict[str, Placement] = {}
        self._arms = 0

    def filter(self, arguments: dict[str, Any]) -> Answer:
        """Return the nodes that could take the pod now."""
        pod, asked = arguments["Pod"], _asked(arguments)
        uid, name = pod["metadata"]["uid"], f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        request = self._request_of(pod)
        if request is None:
            return filter_error(f"pod {name} belongs to no {names.TASK_KIND} that PerLLM knows; create a task instead")
        if isinstance(request, Unplaceable):
            if request.is_watched:
                self._retries.note_rejected(uid, name, None)
            return unplaceable_answer(request.reason, asked)
        placement = self._scheduler.decide(request, asked)
        if placement.node is None:
            self._retries.note_rejected(uid, name, request)
        else:
            self._retries.forget(uid)
        self._remember(uid, placement)
        return filter_answer(placement, asked)

    def prioritize(self, arguments: dict[str, Any]) -> list[Answer]:
        """Return the score of each node; kube-scheduler asks only when several passed the filter."""
        pod, asked = arguments["Pod"], _asked(arguments)
        placement = self._placements.get(pod["metadata"]["uid"])
        if placement is None:
            return [{"Host": name, "Score": 0} for name in asked]
        return priorities(placement, asked)

    async def bind(self, arguments: dict[str, Any]) -> Answer:
        """Bind the pod to the node that kube-scheduler chose."""
        uid, node = arguments["PodUID"], arguments["Node"]
        placement = self._take(uid)
        decision = None if placement is None else self._scheduler.settle(placement.request.task_id, node)
        if placement is None or decision is None:
            return binding_answer(f"PerLLM has no decision for pod {arguments['PodName']}; it will decide again")
        record, flight = decision.to_record(), self._ledger.flight(decision.task_id)
        self._note_bound(uid, node, record)
        try:
            await self._client.post(_binding_path(arguments), _binding(arguments, record))
        except ApiError as error:
            if self._is_same(flight):
                self._scheduler.cancel(decision.task_id)
            if not error.is_unanswered:
                # An earlier binding may have been carried out though its answer was lost; its record is on the pod.
                self._note_denied(uid)
            log.info("pod %s not bound to %s: %s", arguments["PodName"], node, error)
            return binding_answer(str(error))
        if self._is_same(flight):
            demand = placement.request.demand
            self._scheduler.confirm(decision, demand.slots, demand.resource)
        return binding_answer()

    def _is_same(self, flight: Flight | None) -> bool:
        """Whether a task is in flight as it was when its binding was sent.

        If not, the pod has ended or was deleted meanwhile; to confirm it would occupy a slot that nothing releases.
        """
        return flight is not None and self._ledger.flight(flight.task_id) is flight

    def _remember(self, uid: str, placement: Placement) -> None:
        self._take(uid)
        self._placements[uid] = placement
        self._arms += len(placement.names)
        while len(self._placements) > MAX_REMEMBERED or self._arms > MAX_REMEMBERED_ARMS:
            self._take(next(iter(self._placements)))

    def _take(self, uid: str) -> Placement | None:
        placement = self._placements.pop(uid, None)
        self._arms -= 0 if placement is None else len(placement.names)
        return placement


def _asked(arguments: dict[str, Any]) -> list[str]:
    return list(arguments.get("NodeNames") or ())


def _binding_path(arguments: dict[str, Any]) -> str:
    return f"/api/v1/namespaces/{arguments['PodNamespace']}/pods/{arguments['PodName']}/binding"


def _binding(arguments: dict[str, Any], record: str) -> dict[str, Any]:
    """Return a Binding; the API server merges its annotations into the pod in the same transaction."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": arguments["PodName"],
            "namespace": arguments["PodNamespace"],
            "uid": arguments["PodUID"],
            "annotations": {names.DECISION_ANNOTATION: record},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": arguments["Node"]},
    }
