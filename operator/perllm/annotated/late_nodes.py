"""Nodes that join the fleet after pods on them were seen: these count from then, as many have no events for days."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from perllm.cluster.pod import Pod
from perllm.guard import Guard
from perllm.placement.decision import Decision
from perllm.placement.fleet import Fleet


class PodWithDecision(Protocol):
    """A pod that is followed, and the decision about it."""

    @property
    def pod(self) -> Pod:
        """The pod as last seen."""

    @property
    def decision(self) -> Decision | None:
        """By which it is in flight; None while it has no node of the fleet."""


F = TypeVar("F", bound=PodWithDecision)


class LateNodes:
    """Finds the pods whose nodes have joined.

    Args:
        fleet: the nodes.
        guard: contains failures about single pods.
    """

    def __init__(self, fleet: Fleet, guard: Guard) -> None:
        self._fleet = fleet
        self._guard = guard
        self._version = fleet.version

    def count(self, followed: Iterable[F], count: Callable[[F, str], None]) -> None:
        """Call `count` with each pod whose node has joined since it was seen, and the name of the node."""
        if self._version == self._fleet.version:
            return
        self._version = self._fleet.version
        for one in list(followed):
            pod, node = one.pod, one.pod.node
            if one.decision is None and node in self._fleet.nodes and not pod.is_finished:
                self._guard.run("binding", f"{pod.key} {pod.uid}", partial(count, one, node), again=False)
