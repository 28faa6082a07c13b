"""Annotated pods from their creation to their end: what they ask for, what they occupy, what is learned from them.

Their lives are their owners': they get no finalizer, and nothing here creates, deletes or replaces one. All that is
known of a pod is on the pod, so a restart begins with what the API server has.

    gated       it has not arrived yet
    waits       kube-scheduler asks the extender about it
    has a node  it counts as in flight there, by its decision record
    has ended   it is learned from and announced once its energy is known; a lasting pod only makes room
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from perllm.annotated.annotated_pod import AnnotatedPod, UnreadablePod, read_own_pod
from perllm.annotated.followed_pod import FollowedPod, is_over
from perllm.annotated.late_nodes import LateNodes
from perllm.annotated.outcomes import PodOutcomes
from perllm.annotated.report import PodReport, Taken
from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, PodPhase
from perllm.cluster.shapes import as_object
from perllm.controller.clocks import Clocks
from perllm.controller.decisions import Decisions, read_own_record
from perllm.energy.settlement import Settlement
from perllm.extender.protocol import Unplaceable
from perllm.extender.retries import Retries
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.nodes.node_health import NodeHealth
from perllm.placement.claims import ClaimSizes
from perllm.placement.fleet import Fleet
from perllm.placement.request import PlacementRequest
from perllm.scheduling.scheduler import Scheduler

SeenPod = AnnotatedPod | UnreadablePod

UNSCHEDULABLE = "Unschedulable"
"""Reason of a pod that kube-scheduler found no node for."""

UNSEEN_FOR_S = 300.0
"""Time after which a pod that kube-scheduler asked about, and that the watch has not shown, is taken for deleted."""


class AnnotatedPods:
    """Follows the annotated pods of the cluster.

    Args:
        scheduler: counts them as in flight.
        fleet: its nodes.
        learner: knows which outcomes it contains.
        settlement: measures energy.
        outcomes: learns.
        node_health: judges nodes by the ends of pods.
        clocks: judge the times that nodes report.
        decisions: remember which decision bound a pod.
        retries: have kube-scheduler retry pods.
        report: announces what becomes of pods.
        guard: contains failures about single pods.
        unix_now: wall clock.
        gpu_resources: resources that slots are units of.
        claims: the devices that pods ask for by claims.
        namespaces: namespaces that are served; all if empty.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        fleet: Fleet,
        learner: Learner,
        *,
        settlement: Settlement,
        outcomes: PodOutcomes,
        node_health: NodeHealth,
        clocks: Clocks,
        decisions: Decisions,
        retries: Retries,
        report: PodReport,
        guard: Guard,
        unix_now: Callable[[], float],
        gpu_resources: Sequence[str],
        claims: ClaimSizes,
        namespaces: Collection[str],
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._learner = learner
        self._settlement = settlement
        self._outcomes = outcomes
        self._node_health = node_health
        self._clocks = clocks
        self._decisions = decisions
        self._retries = retries
        self._report = report
        self._guard = guard
        self._unix_now = unix_now
        self._gpu_resources = gpu_resources
        self._claims = claims
        self._namespaces = namespaces
        self._followed: dict[str, FollowedPod] = {}
        self._unseen_since_s: dict[str, float] = {}
        self._late_nodes = LateNodes(fleet, guard)

    def read(self, item: Object) -> SeenPod | None:
        """Return what is to be known of a pod; None if it is a task's."""
        return read_own_pod(item, self._gpu_resources, self._claims)

    def request_of(self, item: Object) -> PlacementRequest | Unplaceable | None:
        """Return what a pod asks for, or why no node may take it; None if it is a task's."""
        seen = self.read(item)
        if seen is None:
            return None
        blind_spot = self._find_blind_spot(seen.pod, item)
        if blind_spot:
            return Unplaceable(blind_spot, is_watched=False)
        return Unplaceable(seen.problem) if isinstance(seen, UnreadablePod) else self._answer(seen).request

    def count_late(self) -> None:
        """Count the pods on nodes that have joined since they were seen: tasks must not be sent to slots of theirs."""
        self._late_nodes.count(self._followed.values(), lambda pod, _: self._follow(pod, was_finished=False))

    def _answer(self, annotated: AnnotatedPod) -> FollowedPod:
        now_s = self._unix_now()
        self._forget_unseen(now_s)
        if annotated.pod.uid not in self._followed:
            self._unseen_since_s[annotated.pod.uid] = now_s
        return self._meet(annotated)

    def _forget_unseen(self, now_s: float) -> None:
        """Forget pods that the watch has not shown: they were deleted while kube-scheduler asked about them."""
        for uid, since_s in list(self._unseen_since_s.items()):
            if now_s - since_s < UNSEEN_FOR_S:
                return
            self._retries.forget(uid)
            self._decisions.forget(uid)
            self._forget(self._followed[uid])

    def _find_blind_spot(self, pod: Pod, item: Object) -> str:
        """Return why the operator does not watch a pod, so that its end would go unnoticed; empty if it does."""
        if self._namespaces and pod.namespace not in self._namespaces:
            return f"namespace {pod.namespace} is not one of config.namespaces"
        is_labelled = names.TASK_LABEL in as_object(as_object(item.get("metadata")).get("labels"))
        return f"label {names.TASK_LABEL} is for pods of tasks: remove it" if is_labelled else ""

    def is_in_flight(self, uid: str) -> bool:
        """Whether a pod of this uid was seen, and may occupy a node."""
        followed = self._followed.get(uid)
        return followed is not None and uid not in self._unseen_since_s and not followed.has_left

    def on_pod(self, old: SeenPod | None, new: SeenPod | None) -> None:
        """Handle a pod that was added, changed or deleted; called inside the guard."""
        if old is not None and (new is None or new.pod.uid != old.pod.uid):
            self._drop(old.pod)
        if new is None:
            return
        self._unseen_since_s.pop(new.pod.uid, None)
        self._take(new)
        if old is None:
            self._resume(new)
        elif _asked(old) != _asked(new):
            self._retries.retry(new.pod.uid)

    def _resume(self, seen: SeenPod) -> None:
        """Have a pod retried that an earlier process has rejected, or kube-scheduler itself."""
        pod, known = seen.pod, self._followed.get(seen.pod.uid)
        if pod.node is None and pod.wait_reason == UNSCHEDULABLE:
            self._retries.note_rejected(pod.uid, pod.key, None if known is None else known.request)

    def _meet(self, annotated: AnnotatedPod) -> FollowedPod:
        """Return what is known of a pod; it has arrived if it was not known, and waits."""
        uid = annotated.pod.uid
        followed = self._followed.get(uid)
        if followed is None:
            followed = self._followed[uid] = FollowedPod(annotated, was_over=annotated.pod.is_finished)
            if annotated.pod.node is None and not annotated.is_lasting:
                self._scheduler.note_arrival(followed.request)
                self._scheduler.rehearse(followed.request)
        elif followed.decision is None:
            followed.annotated = replace(annotated, pod=followed.pod)
        elif followed.annotated.demand != annotated.demand:
            # A claim may become known only after its pod has a node.
            followed.annotated = replace(followed.annotated, demand=annotated.demand)
            self._count(followed)
        return followed

    def _take(self, seen: SeenPod) -> None:
        known = self._followed.get(seen.pod.uid)
        if known is None and (isinstance(seen, UnreadablePod) or seen.is_gated or is_over(seen, self._learner)):
            return
        followed = self._meet(seen) if isinstance(seen, AnnotatedPod) else known
        if followed is None:
            return
        before = None if known is None else known.pod
        pod = self._decisions.restore(self._clocks.see(seen.pod, before, self._unix_now()), before)
        followed.annotated = replace(followed.annotated, pod=pod)
        self._node_health.see(before, pod, followed.annotated.announcement.model)
        if pod.node is not None:
            self._follow(followed, was_finished=before is not None and before.is_finished)

    def _follow(self, followed: FollowedPod, *, was_finished: bool) -> None:
        """Bring what counts as in flight in line with a pod that has a node."""
        pod, is_lasting = followed.pod, followed.annotated.is_lasting
        if followed.decision is None and pod.node in self._fleet.nodes:
            self._note_binding(followed, pod.node)
        if pod.is_finished and pod.linger_s is None:
            # Also if its node is not of the fleet (any more): it may have been when the pod was bound.
            self._leave(followed)
        if followed.decision is None:
            return
        if not pod.is_finished:
            if not is_lasting:
                self._settlement.begin(
                    pod, followed.decision.inference.prompt_tokens, self._unix_now(), followed.annotated.owner
                )
            return
        if not was_finished and not is_lasting:
            self._settlement.end(pod, self._unix_now(), followed.annotated.owner)
        if not was_finished:
            self._end(followed)

    def _note_binding(self, followed: FollowedPod, node: str) -> None:
        """Note by which decision a pod is in flight: by that in its record, or, if others placed it, by one of now."""
        pod, request = followed.pod, followed.request
        record = pod.decision_record
        decision = read_own_record(record, node, request, followed.annotated.created_s) if record else None
        followed.is_ours = decision is not None
        if decision is None:
            decision = self._scheduler.explain(self._scheduler.consider(request), node)
        followed.decision = decision
        self._count(followed)
        if followed.is_ours and self._decisions.has_bound(pod):
            self._report.placed(followed.annotated, decision)

    def _count(self, followed: FollowedPod) -> None:
        """Count a pod that has a node as in flight there, unless it occupies nothing any more."""
        pod, demand = followed.pod, followed.annotated.demand
        has_ended = followed.has_left or (pod.is_finished and pod.linger_s is None)
        if followed.decision is not None and not has_ended:
            self._scheduler.confirm(followed.decision, demand.slots, demand.resource)

    def _leave(self, followed: FollowedPod) -> None:
        pod = followed.pod
        if pod.node is not None and not followed.has_left:
            followed.residence = self._scheduler.end(pod.uid, pod.node, pod.output_tokens)
            followed.has_left = True

    def _end(self, followed: FollowedPod) -> None:
        pod = followed.pod
        # A deleted pod was ended by its owner, by preemption or by Kueue, and not by its node.
        if not followed.is_ours or pod.was_deleted:
            return
        if pod.phase is PodPhase.FAILED:
            self._report.failed(followed.annotated)
        elif not followed.annotated.is_lasting:
            followed.is_settling = True
            self._settle_safely(followed)

    def _settle_safely(self, followed: FollowedPod) -> None:
        # By the uid too: another pod may have the name by now.
        pod = followed.pod
        self._guard.run("outcome", f"{pod.key} {pod.uid}", partial(self._settle, pod.uid))

    def _settle(self, uid: str) -> None:
        """Learn from a pod that succeeded, once its energy is known or known to be missing."""
        followed = self._followed.get(uid)
        if followed is None or followed.decision is None or not followed.is_settling:
            return
        pod, decision = followed.pod, followed.decision
        transmission_j = decision.forecast.energy.transmission_energy_j
        energy = self._settlement.measure(pod, transmission_j, self._unix_now())
        if energy is None:
            asyncio.get_running_loop().call_later(self._settlement.retry_s, self._settle_safely, followed)
            return
        run, is_new = self._outcomes.learn(followed.annotated, followed.request, decision, energy, followed.residence)
        followed.is_settling = False
        if followed.is_gone:
            self._forget(followed)
        if is_new or not followed.was_over:
            taken = Taken(run.latency_s, followed.annotated.deadline_s, energy)
            self._report.completed(followed.annotated, decision, taken)

    def _drop(self, pod: Pod) -> None:
        """Note that a pod is gone; it is forgotten unless its energy is awaited."""
        self._retries.forget(pod.uid)
        self._decisions.forget(pod.uid)
        followed = self._followed.get(pod.uid)
        if followed is None:
            return
        followed.is_gone = True
        if followed.decision is not None and not followed.pod.is_finished and not followed.annotated.is_lasting:
            self._settlement.end(followed.pod, self._unix_now(), followed.annotated.owner)
        self._leave(followed)
        if not followed.is_settling:
            self._forget(followed)

    def _forget(self, followed: FollowedPod) -> None:
        uid = followed.pod.uid
        del self._followed[uid]
        self._unseen_since_s.pop(uid, None)
        # Not by its name, which a task may have as well.
        self._scheduler.forget(uid, uid)


def _asked(seen: SeenPod) -> object:
    return seen.problem if isinstance(seen, UnreadablePod) else seen.announcement
