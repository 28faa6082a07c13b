"""Brings tasks, pods and outcomes together. One event loop; what blocks or waits is elsewhere.

    task seen, pod seen, timer due  ->  lifecycle.advance (pure)  ->  pods, statuses, announcements, outcomes

Memory is authoritative for statuses once a task has been seen: nobody else writes them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from perllm.api import names
from perllm.api.node_profile import CircuitStatus
from perllm.api.task_status import TaskPhase, TaskStatus
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import object_key
from perllm.cluster.obstacles import is_quota_changed, is_relabelled
from perllm.cluster.pod import Pod, read_pod
from perllm.cluster.pod_ends import PodPatience, call_end, is_lost, is_refusal, next_look_s
from perllm.cluster.writes import WriteQueue
from perllm.controller import lifecycle
from perllm.controller.announcer import Announcer
from perllm.controller.clocks import Clocks
from perllm.controller.conditions import Note
from perllm.controller.decisions import Decisions, read_decision
from perllm.controller.dispatcher import Dispatcher, Waiting
from perllm.controller.evidence import find_fault
from perllm.controller.outcomes import build_outcome
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.status_writer import Fields, StatusWriter
from perllm.controller.summary import is_settled
from perllm.controller.task import Task, read_task
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth, find_avoided
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence
from perllm.placement.hindsight import judge_ended
from perllm.placement.placer import Placement, Placer
from perllm.placement.request import PlacementRequest
from perllm.scheduling.admission import Admission, explain_wait
from perllm.scheduling.refusal import PodRefusal, RefusalCause
from perllm.scheduling.shares import Shares

MAX_ENDING_S = 40.0
"""Within which a pod that is deleted is gone, its grace period of 30 s included; else its node does not answer."""


@dataclass(slots=True)
class Tracked:
    """A task in the controller's care."""

    task: Task
    status: TaskStatus
    pods: dict[str, Pod] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    residence: Residence | None = None
    is_learned: bool = False
    note: Note | None = None
    cause: str = ""
    ended: Pod | None = None

    @property
    def all_pods(self) -> list[Pod]:
        """Its pods, with the one that ended last though it may be gone."""
        gone = [] if self.ended is None or self.ended.name in self.pods else [self.ended]
        return [*self.pods.values(), *gone]

    def find_pod(self, name: str | None) -> Pod | None:
        """Return one of its pods; None if it is not known any more."""
        return next((pod for pod in self.all_pods if pod.name == name), None)


class Controller:
    """The life of all tasks."""

    def __init__(
        self,
        client: Client,
        placer: Placer,
        settlement: Settlement,
        announcer: Announcer,
        metrics: OperatorMetrics,
        *,
        writes: WriteQueue,
        guard: Guard,
        unix_now: Callable[[], float],
        admission: Admission | None = None,
        scheduler_name: str = names.SCHEDULER_NAME,
        shares: Shares | None = None,
        rng: Random | None = None,
        gpu_resource: str = names.GPU_RESOURCE,
        show_circuit: Callable[[str, CircuitStatus], None] = lambda *_: None,
        patience: PodPatience | None = None,
    ) -> None:
        self._guard = guard
        self._placer = placer
        self._settlement = settlement
        self._announcer = announcer
        self._metrics = metrics
        self._unix_now = unix_now
        self._admission = admission or Admission()
        self._gpu_resource = gpu_resource
        self._patience = patience or PodPatience()
        self.clocks = Clocks(placer.fleet.nodes.__contains__, metrics.show_clock_skew)
        self.decisions = Decisions()
        self._tracked: dict[str, Tracked] = {}
        self._orphans: dict[str, dict[str, Pod]] = {}
        self._pods = PodKeeper(
            client,
            writes,
            scheduler_name=scheduler_name,
            on_taken=self._is_ours,
            on_invalid=self._refuse_template,
        )
        self.dispatcher = Dispatcher(
            placer,
            admission=self._admission,
            shares=shares or Shares(),
            create_pod=self._pods.create,
            reject=self._reject,
            wait=self._explain_wait,
            postpone=self._postpone,
            guard=guard,
            rng=rng or Random(),
        )
        self.node_health = NodeHealth(placer, metrics, free=self.dispatcher.free, show=show_circuit, unix_now=unix_now)
        self.writer = StatusWriter(client, writes, on_written=self._on_written, on_gone=self._forget)
        metrics.waiting.set_function(lambda: self.dispatcher.waiting)
        for cause in RefusalCause:
            metrics.postponed.labels(cause).set_function(partial(self.dispatcher.postponed, cause))
        metrics.in_flight.set_function(lambda: len(placer.ledger))

    def request_of(self, pod: Object) -> PlacementRequest | None:
        """Return what the task of a pod asks for; None if the task is not known (yet)."""
        seen = read_pod(pod)
        tracked = self._tracked.get(seen.task_key) if seen else None
        if seen is None or tracked is None or tracked.task.spec is None or tracked.task.uid != seen.task_uid:
            return None
        return tracked.task.to_request(find_avoided(tracked.all_pods))

    def on_task(self, item: Object, *, deleted: bool) -> None:
        """Take note of a task that was added, changed or deleted."""
        key = object_key(item)
        work = partial(self._take_task, item, deleted=deleted)
        self._guard.run("task", key, work, on_fault=partial(self._report_fault, key))

    def on_list(self, namespace: str | None, uids: Mapping[str, str]) -> None:
        """Take note of the tasks that exist in a namespace, or in all: others were deleted while nobody watched.

        Args:
            namespace: where they were listed; None for everywhere.
            uids: uid by namespace/name.
        """
        for key, tracked in list(self._tracked.items()):
            if namespace in (None, tracked.task.namespace) and uids.get(key) != tracked.task.uid:
                self._guard.run("task", key, partial(self._forget, key))

    def on_pod(self, old: Object | None, new: Object | None) -> None:
        """Take note of a pod that was added, changed or deleted; called inside the guard."""
        pod = read_pod(new or old or {})
        if pod is not None:
            self._take_pod(pod, is_gone=new is None)

    def _take_task(self, item: Object, *, deleted: bool) -> None:
        key = object_key(item)
        tracked = self._tracked.get(key)
        if deleted:
            # Also what could not be read has left something: words in its status, and the wish to try again.
            if tracked is None or tracked.task.uid == item["metadata"]["uid"]:
                self._forget(key)
            return
        if self._is_known(item):
            return
        task, status = read_task(item, self._unix_now(), self._gpu_resource)
        if tracked is not None and tracked.task.uid != task.uid:
            self._forget(task.key)
            tracked = None
        if tracked is None:
            self.writer.know(task.key, item.get("status") or {})
            if task.spec is not None and status.received_time is None:
                self._placer.note_arrival(task.to_request())
            pods = {name: pod for name, pod in self._orphans.pop(task.key, {}).items() if pod.task_uid == task.uid}
            self._tracked[task.key] = Tracked(task, status, pods)
            for pod in pods.values():
                self._guard.run("pod", pod.key, partial(self._take_pod, pod, is_gone=False))
        else:
            tracked.task = task
        self._reconcile_guarded(task.key)
        known = self._tracked.get(task.key)
        if known is not None and known.status.observed and known.status.observed.energy_quality is not None:
            self._guard.run("outcome", task.key, partial(self._learn, known))

    def _is_known(self, item: Object) -> bool:
        """Whether this is only our own status coming back, which is most of what a watch brings."""
        metadata = item["metadata"]
        tracked = self._tracked.get(object_key(item))
        if tracked is None:
            return False
        task = tracked.task
        seen = metadata["uid"], metadata.get("generation", 1), bool(metadata.get("deletionTimestamp"))
        return (task.uid, task.generation, task.is_deleting) == seen

    def _take_pod(self, pod: Pod, *, is_gone: bool) -> None:
        tracked = self._tracked.get(pod.task_key)
        if tracked is not None and tracked.task.uid != pod.task_uid:
            tracked = None
        pods = self._orphans.setdefault(pod.task_key, {}) if tracked is None else tracked.pods
        before = pods.get(pod.name)
        pod = self.decisions.restore(self.clocks.see(pod, before, self._unix_now()), before)
        if is_gone:
            pods.pop(pod.name, None)
            self.dispatcher.hasten(pod.task_key)
            self.decisions.forget(pod.uid)
            if tracked is None and not pods:
                self._orphans.pop(pod.task_key, None)
        else:
            pods[pod.name] = pod
            self._count_refusal(pod, before)
            if tracked is not None and tracked.task.spec is not None:
                self.node_health.see(before, pod, tracked.task.spec.model)
        if tracked is not None:
            if is_gone and pod.is_finished and (tracked.ended is None or pod.attempt >= tracked.ended.attempt):
                tracked.ended = replace(pod, linger_s=None)
            self._account(pod, gone=is_gone)
            self._reconcile_guarded(pod.task_key)
            if pod.node is None and pod.wait_reason:
                self.dispatcher.let_go(pod.task_key)

    def _report_fault(self, key: str, words: str) -> None:
        """Let the owner of a task know that PerLLM failed on it."""
        namespace, _, name = key.partition("/")
        tracked = self._tracked.get(key)
        status = tracked.status if tracked is not None else TaskStatus()
        if not status.phase.is_final:
            message = f"PerLLM has failed on this task and tries again: {words}"
            fields = status.model_copy(update={"message": message}).to_object()
            self.writer.put(key, names.task_status_path(namespace, name), fields)

    def on_quota(self, old: Object | None, new: Object | None) -> None:
        """Take note of a quota that was added, changed or deleted."""
        if is_quota_changed(old, new):
            self.dispatcher.note_sign((new or old or {})["metadata"]["namespace"])

    def on_namespace(self, old: Object | None, new: Object | None) -> None:
        """Take note of a namespace that was added, changed or deleted."""
        if is_relabelled(old, new):
            self.dispatcher.note_sign((new or old or {})["metadata"]["name"])

    def _count_refusal(self, pod: Pod, before: Pod | None) -> None:
        if is_refusal(pod) and not (before and is_refusal(before)):
            self._metrics.refusals.inc()

    def _account(self, pod: Pod, *, gone: bool = False) -> None:
        """Keep the tasks in flight and their energy windows equal to what the pods say."""
        tracked = self._tracked[pod.task_key]
        if pod.node is None:
            return
        decision = read_decision(tracked.task, pod)
        is_superseded = any(other.attempt > pod.attempt for other in tracked.pods.values())
        if decision is not None and (gone or pod.is_finished):
            self._settlement.end(pod, self._unix_now())
        if gone or (pod.is_finished and pod.linger_s is None):
            if not is_superseded:
                tracked.residence = self._placer.release(pod.task_uid) or tracked.residence
                self._learn_ended(tracked, pod, decision)
            self.dispatcher.free(pod.node)
        elif decision is not None and not is_superseded and pod.node in self._placer.fleet.nodes:
            self._placer.confirm(decision, tracked.task.demand.slots)
            if not pod.is_finished:
                self._settlement.begin(pod, self._unix_now())

    def _call_ends(self, tracked: Tracked, now_s: float) -> None:
        """End what the operator waits for no longer."""
        task = tracked.task
        if task.spec is None:
            return
        for name, pod in list(tracked.pods.items()):
            called = call_end(pod, self._patience, task.due_s, now_s)
            if called is not pod:
                tracked.pods[name] = called
                self._count_refusal(called, pod)
                self.node_health.see(pod, called, task.spec.model)
                self._account(called)

    def _reconcile_guarded(self, key: str) -> None:
        self._guard.run("task state", key, partial(self._reconcile, key), on_fault=partial(self._report_fault, key))

    def _reconcile(self, key: str) -> None:
        tracked = self._tracked.get(key)
        if tracked is None:
            return  # gone since this was to be done
        # One moment for all: what is due between two looks at the clock would be neither done nor waited for.
        task, before, now_s = tracked.task, tracked.status, self._unix_now()
        self._call_ends(tracked, now_s)
        step = lifecycle.advance(task, before, tracked.all_pods, now_s, tracked.note)
        tracked.cause = step.cause
        self._adopt(tracked, step.status)
        if step.attempt is not None:
            self.dispatcher.add(Waiting(task, step.attempt, find_avoided(tracked.all_pods)))
        else:
            tracked.note = None
            if step.status.phase.is_final or step.status.node_name is not None:
                self.dispatcher.remove(key)
            else:
                self.dispatcher.note_pod(key)
        for pod in step.doomed:
            self._pods.delete(f"/api/v1/namespaces/{task.namespace}/pods/{pod.name}", pod.uid)
        if step.finished is not None:
            self._settle(tracked, step.finished)
        self._schedule(tracked, step, now_s)

    def _adopt(self, tracked: Tracked, status: TaskStatus) -> None:
        """Make `status` the task's, announce what is new in it, and have it written."""
        task, before = tracked.task, tracked.status
        tracked.status = status
        if status.node_name and (status.node_name, status.pod_name) != (before.node_name, before.pod_name):
            pod = tracked.find_pod(status.pod_name)
            decision = read_decision(task, pod) if pod else None
            if decision is not None:
                self._announcer.placed(task, decision)
        is_out = status.phase in (TaskPhase.FAILED, TaskPhase.REJECTED)
        if status.deadline_met is False and before.deadline_met is not False and not is_out:
            self._announcer.missed(task, status)
        if status.phase.is_final and not before.phase.is_final:
            self._announcer.ended(task, status)
        if is_settled(status) and not is_settled(before):
            self._announcer.settled(task, status, self._unix_now())
        self.writer.put(task.key, names.task_status_path(task.namespace, task.name), status.to_object())

    def _settle(self, tracked: Tracked, pod: Pod) -> None:
        """Measure the energy of a finished task as soon as the metrics cover its run."""
        observed = tracked.status.observed
        if observed is None or observed.energy_quality is not None:
            return
        decision = read_decision(tracked.task, pod)
        transmission_energy_j = decision.forecast.energy.transmission_energy_j if decision else 0.0
        measured = self._settlement.measure(pod, transmission_energy_j, self._unix_now())
        if measured is None:
            return
        energy_j = None if measured.energy_j is None else round(measured.energy_j, 3)
        observed = observed.model_copy(update={"energy_joules": energy_j, "energy_quality": measured.quality})
        self._announcer.measured(tracked.status.tier, measured)
        self._adopt(tracked, tracked.status.model_copy(update={"observed": observed}))

    def _schedule(self, tracked: Tracked, step: lifecycle.Step, now_s: float) -> None:
        """Look at the task again when time alone will change something."""
        if tracked.timer is not None:
            tracked.timer.cancel()
            tracked.timer = None
        task, status = tracked.task, tracked.status
        if task.spec is None:
            return
        looks_s = [next_look_s(pod, self._patience, task.due_s) for pod in tracked.pods.values()]
        waits_s = [look_s - now_s for look_s in looks_s if look_s is not None and look_s > now_s]
        if not status.phase.is_final:
            waits_s += [task.due_s - now_s] if task.due_s > now_s else []
        elif status.observed is not None and status.observed.energy_quality is None and step.finished is not None:
            waits_s.append(self._settlement.retry_s)
        elif step.expire_in_s is not None:
            if step.expire_in_s <= 0:
                self._pods.delete(names.task_path(task.namespace, task.name), task.uid)
                return
            waits_s.append(step.expire_in_s)
        if waits_s:
            loop = asyncio.get_running_loop()
            tracked.timer = loop.call_later(max(min(waits_s), 0.0) + 0.001, self._wake, task)

    def _wake(self, task: Task) -> None:
        if self._find(task) is not None:
            self._reconcile_guarded(task.key)

    def _find(self, task: Task) -> Tracked | None:
        """Return a task's record; None once the task is gone, also if another has its name by now."""
        tracked = self._tracked.get(task.key)
        return tracked if tracked is not None and tracked.task.uid == task.uid else None

    def _is_ours(self, waiting: Waiting, name: str) -> bool:
        """Whether the pod that holds the name is the attempt's own, created before and seen."""
        tracked = self._find(waiting.task)
        return tracked is None or name in tracked.pods

    def _refuse_template(self, task: Task, message: str) -> None:
        self._refuse(task, "InvalidTemplate", f"spec.template cannot be used: {message}")

    def _reject(self, task: Task, placement: Placement) -> None:
        self._refuse(task, "Infeasible", self._admission.explain_refusal(placement, task.valid_spec.deadline))

    def _refuse(self, task: Task, reason: str, message: str) -> None:
        """End a task without running it."""
        tracked = self._find(task)
        if tracked is None:
            return
        if not tracked.status.phase.is_final:
            self._adopt(tracked, lifecycle.reject(task, tracked.status, reason, message, self._unix_now()))
        self._reconcile_guarded(task.key)

    def _postpone(self, task: Task, refusal: PodRefusal) -> None:
        note = Note(refusal.cause, f"its pod cannot be created, will be tried again: {refusal.message}")
        if self._explain(task, note):
            self._announcer.postponed(task, note.message)

    def _explain_wait(self, task: Task, placement: Placement) -> None:
        self._explain(task, Note("Waiting", explain_wait(placement)))

    def _explain(self, task: Task, note: Note) -> bool:
        """Say why a task has no pod; return whether that is new."""
        tracked = self._find(task)
        if tracked is None or tracked.note == note or tracked.status.phase.is_final:
            return False
        tracked.note = note
        self._adopt(tracked, lifecycle.note_wait(task, tracked.status, note, tracked.cause, self._unix_now()))
        return True

    def _on_written(self, key: str, fields: Fields) -> None:
        """Learn from a task once its outcome is stored: so a crash can repeat the learning, never lose it."""
        tracked = self._tracked.get(key)
        if tracked is not None and (fields.get("observed") or {}).get("energyQuality") is not None:
            self._guard.run("outcome", key, partial(self._learn, tracked))

    def _learn(self, tracked: Tracked) -> None:
        """Learn from a settled task; the learner knows which outcomes an earlier process has learned."""
        if tracked.is_learned:
            return
        observed, pod = tracked.status.observed, tracked.find_pod(tracked.status.pod_name)
        if observed is None or pod is None or pod.decision_record is None or pod.node not in self._placer.fleet.nodes:
            return
        decision = read_decision(tracked.task, pod)
        fault = find_fault(tracked.task, observed, pod, decision)
        if fault is not None:
            tracked.is_learned = True
            self._metrics.outcomes_refused.labels(fault).inc()
        if fault is not None or decision is None:
            return
        outcome = build_outcome(tracked.task, tracked.status, pod, decision, tracked.residence)
        if outcome is None:
            return
        tracked.is_learned = True
        reward = self._placer.learner.learn(outcome)
        if reward is not None:
            self._metrics.outcomes.inc()
            self._metrics.reward.observe(reward)

    def _learn_ended(self, tracked: Tracked, pod: Pod, decision: Decision | None) -> None:
        """Learn from a task that was ended at its deadline, unless its node may have been the cause."""
        task, status = tracked.task, tracked.status
        if decision is None or not lifecycle.is_ended_at_deadline(status) or pod.name != status.pod_name:
            return
        node = self._placer.fleet.nodes.get(decision.node)
        was_at_once = self._unix_now() <= task.due_s + MAX_ENDING_S
        if node is not None and node.is_open and was_at_once and not (pod.is_disrupted or is_lost(pod)):
            self._placer.learner.learn_ended(judge_ended(decision, task.due_s, tracked.residence))

    def _forget(self, key: str) -> None:
        for kind in ("task", "task state", "outcome"):
            self._guard.clear(kind, key)
        self.writer.forget(key)
        tracked = self._tracked.pop(key, None)
        if tracked is None:
            return
        if not is_settled(tracked.status):
            self._announcer.settled(tracked.task, tracked.status, self._unix_now())
        if tracked.timer is not None:
            tracked.timer.cancel()
        self.dispatcher.remove(key)
        self._placer.release(tracked.task.uid)
        self._placer.circuits.forget_task(tracked.task.uid)
        for pod in tracked.pods.values():
            self._settlement.forget(pod.uid)
            self.decisions.forget(pod.uid)
