"""Follows the pods of other schedulers: says what PerLLM would have done, learns from what came, and compares both.

A pod is compared by the state in which it was first seen, before it had a node. One that had a node for a while already
when it was first seen, as after a start of the operator, only counts as work that its node has.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.annotated.completed import read_run
from perllm.annotated.late_nodes import LateNodes
from perllm.api.task_status import Observation
from perllm.cluster.pod import Pod, PodPhase
from perllm.controller.clocks import Clocks
from perllm.controller.evidence import find_fault
from perllm.controller.reviews import Reviews
from perllm.energy.attribution import Attribution
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.nodes.node_health import NodeHealth
from perllm.placement.counterfactual import Savings
from perllm.placement.decision import Decision
from perllm.placement.fleet import Fleet
from perllm.placement.flight import Residence
from perllm.placement.hindsight import judge_run
from perllm.placement.request import PlacementRequest
from perllm.scheduling.scheduler import Scheduler
from perllm.shadow.report import ShadowReport

FRESH_S = 5.0
"""A pod that is no older when it is first seen is seen as it arrives, even if it has a node already."""


@dataclass(slots=True)
class Followed:
    """A pod that has not ended, or whose energy is awaited.

    Attributes:
        pod: as last seen.
        request: what its task would have asked of placement.
        is_compared: whether it was seen as it arrived.
        is_lasting: whether it does not end by itself, as a server, and only takes room.
        decision: its real placement in the form of a decision; None while it has no node of the fleet.
        residence: what it met on its node; None until it has left.
    """

    pod: Pod
    request: PlacementRequest
    is_compared: bool
    is_lasting: bool = False
    decision: Decision | None = None
    residence: Residence | None = None

    @property
    def is_settling(self) -> bool:
        """Whether it has succeeded, and its energy is awaited."""
        return self.pod.phase is PodPhase.SUCCEEDED and self.is_compared and self.decision is not None


class ShadowObserver:
    """Compares pods of other schedulers with what PerLLM would have done.

    Args:
        scheduler: decides, and learns.
        fleet: its nodes.
        settlement: measures energy.
        savings: accounts for the differences.
        node_health: judges nodes by the ends of pods.
        clocks: judge the times that nodes report.
        report: announces what is found.
        guard: contains failures about single pods.
        unix_now: wall clock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        fleet: Fleet,
        *,
        settlement: Settlement,
        savings: Savings,
        node_health: NodeHealth,
        clocks: Clocks,
        report: ShadowReport,
        guard: Guard,
        unix_now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._settlement = settlement
        self._savings = savings
        self._node_health = node_health
        self._clocks = clocks
        self._report = report
        self._guard = guard
        self._unix_now = unix_now
        self._reviews = Reviews(scheduler, guard)
        self._followed: dict[str, Followed] = {}
        self._late_nodes = LateNodes(fleet, guard)

    def on_pod(self, old: AnnotatedPod | None, new: AnnotatedPod | None) -> None:
        """Handle a pod that was added, changed or deleted; called inside the guard."""
        self._late_nodes.count(self._followed.values(), self._note_binding)
        if old is not None and (new is None or new.pod.uid != old.pod.uid):
            self._drop(old.pod)
        if new is not None:
            self._take(new)

    def _take(self, shadowed: AnnotatedPod) -> None:
        followed = self._followed.get(shadowed.pod.uid)
        if followed is None:
            if shadowed.pod.is_finished:
                return  # it ended before it was seen
            followed = self._followed[shadowed.pod.uid] = self._begin(shadowed)
        was_finished, before = followed.pod.is_finished, followed.pod
        pod = followed.pod = self._clocks.see(shadowed.pod, before, self._unix_now())
        self._node_health.see(before, pod, followed.request.model)
        if followed.decision is None and pod.node in self._fleet.nodes and not pod.is_finished:
            self._note_binding(followed, pod.node)
        if followed.decision is None:
            return
        if followed.is_lasting:
            if pod.is_finished and pod.linger_s is None:
                self._scheduler.end(pod.uid, followed.decision.node)
        elif was_finished:
            return
        elif pod.is_finished:
            self._end(followed)
        else:
            self._settlement.begin(pod, followed.decision.inference.prompt_tokens, self._unix_now())

    def _begin(self, shadowed: AnnotatedPod) -> Followed:
        now_s, pod = self._unix_now(), shadowed.pod
        created_s = now_s if pod.created_s is None else pod.created_s
        is_new = now_s - created_s <= FRESH_S and pod.started_s is None and not shadowed.is_lasting
        # The API server writes whole seconds: within the second, the moment at which the pod was seen is closer.
        request = shadowed.to_request(min(max(now_s, created_s), created_s + 1.0))
        if not is_new:
            return Followed(pod, request, is_compared=False, is_lasting=shadowed.is_lasting)
        self._scheduler.note_arrival(request)
        self._report.decided(pod, self._scheduler.rehearse(request))
        # Its node is a change to what was seen of it first: without one.
        return Followed(replace(pod, node=None), request, is_compared=True)

    def _note_binding(self, followed: Followed, node: str) -> None:
        placement = self._scheduler.consider(followed.request)
        followed.decision = decision = self._scheduler.explain(placement, node)
        self._scheduler.confirm(decision, followed.request.demand.slots)
        if followed.is_compared:
            self._report.bound(decision)

    def _end(self, followed: Followed) -> None:
        pod, decision = followed.pod, followed.decision
        if decision is None:
            return
        self._settlement.end(pod, self._unix_now())
        followed.residence = self._scheduler.end(pod.uid, decision.node, pod.output_tokens)
        if followed.is_settling:
            self._settle_safely(followed)

    def _settle_safely(self, followed: Followed) -> None:
        # By the uid too: another pod may have the name by now.
        pod = followed.pod
        self._guard.run("outcome", f"{pod.key} {pod.uid}", partial(self._settle, pod.uid))

    def _settle(self, uid: str) -> None:
        """Account for a pod that succeeded, once its energy is known or known to be missing."""
        followed = self._followed.get(uid)
        if followed is None or followed.decision is None:
            return
        transmission_j = followed.decision.forecast.energy.transmission_energy_j
        energy = self._settlement.measure(followed.pod, transmission_j, self._unix_now())
        if energy is None:
            asyncio.get_running_loop().call_later(self._settlement.retry_s, self._settle_safely, followed)
            return
        self._account(followed, followed.decision, energy)
        del self._followed[uid]
        self._scheduler.forget(followed.pod.key, uid)

    def _account(self, followed: Followed, decision: Decision, energy: Attribution) -> None:
        pod = followed.pod
        run = read_run(pod, followed.request, decision, energy, followed.residence)
        fault = find_fault(run.finished_s, Observation.of_report(pod.report), pod, decision)
        if fault is not None:
            self._report.discarded(fault)
        if fault is not None or pod.was_restarted:
            return
        outcome = judge_run(decision, run)
        endings = self._reviews.review(pod.key, decision, due_s=followed.request.due_s, outcome=outcome)
        if self._scheduler.learn(outcome, decision.gpu_type) is not None:
            self._savings.note(*endings)
            for ending in endings:
                self._report.ended(pod, ending, run.latency_s)

    def _drop(self, pod: Pod) -> None:
        """Forget a pod that is gone, unless it has ended and its energy is awaited."""
        followed = self._followed.get(pod.uid)
        if followed is None or followed.is_settling:
            return
        del self._followed[pod.uid]
        self._scheduler.forget(pod.key, pod.uid)
        self._settlement.forget(pod.uid)
        if followed.decision is not None and followed.residence is None:
            self._scheduler.end(pod.uid, followed.decision.node)
