"""Receives tasks, pods, quotas and namespaces as the API server has them. One event loop; nothing here waits.

task seen, pod seen, timer due  ->  Reconciler  ->  scheduler, pods, statuses, announcements, outcomes
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from perllm.api.task_status import RunsAs, TaskPhase, TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.devices import DeviceClaim
from perllm.cluster.informer import object_key
from perllm.cluster.obstacles import Obstacle
from perllm.cluster.pod import Pod, find_task
from perllm.cluster.shapes import as_object
from perllm.controller.clocks import Clocks
from perllm.controller.decisions import Decisions
from perllm.controller.history import History, Stub
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.pod_accounts import PodAccounts
from perllm.controller.pod_releases import PodReleases
from perllm.controller.prompt_ratios import PromptRatios
from perllm.controller.reconciler import Reconciler
from perllm.controller.retirement import read_stub
from perllm.controller.served_runs import adopt_report, is_late_report, read_run
from perllm.controller.status_writer import StatusWriter, Stored, read_stored
from perllm.controller.suspensions import Suspensions
from perllm.controller.task import Task, read_status, read_task, read_task_demand
from perllm.controller.tracking import Tracked, Tracking
from perllm.guard import Guard
from perllm.learning.learner import Learner
from perllm.nodes.node_health import find_avoided
from perllm.placement.claims import ClaimSizes
from perllm.placement.request import PlacementRequest
from perllm.scheduling.scheduler import Scheduler


class Controller:
    """Handles what the API server reports about tasks and what they depend on.

    Args:
        tracking: the tasks.
        scheduler: decides.
        reconciler: brings each task in line with what is known of it.
        accounts: account for pods.
        outcomes: learns from tasks.
        releases: release pods whose ends are recorded.
        history: the finished tasks.
        learner: knows which outcomes it contains.
        writer: writes statuses.
        clocks: judge the times that nodes report.
        decisions: remember which decision bound a pod.
        suspensions: know which tasks may not run for now.
        guard: contains failures about single objects.
        unix_now: wall clock.
        gpu_resources: resources that slots are units of.
        claims: the devices that pods ask for by claims.
        ratios: how many tokens the prompts of served tasks have.
        has_runners: whether served tasks may get runner pods.
        has_pods: whether the pods of a namespace were listed.
    """

    def __init__(
        self,
        tracking: Tracking,
        scheduler: Scheduler,
        *,
        reconciler: Reconciler,
        accounts: PodAccounts,
        outcomes: OutcomeLearner,
        releases: PodReleases,
        history: History,
        learner: Learner,
        writer: StatusWriter,
        clocks: Clocks,
        decisions: Decisions,
        suspensions: Suspensions,
        guard: Guard,
        unix_now: Callable[[], float],
        gpu_resources: Sequence[str],
        claims: ClaimSizes,
        ratios: PromptRatios,
        has_runners: bool,
        has_pods: Callable[[str], bool],
        bill_label: str,
    ) -> None:
        self._tracking = tracking
        self._scheduler = scheduler
        self._reconciler = reconciler
        self._accounts = accounts
        self._outcomes = outcomes
        self._releases = releases
        self._history = history
        self._learner = learner
        self._writer = writer
        self._clocks = clocks
        self._decisions = decisions
        self._suspensions = suspensions
        self._guard = guard
        self._unix_now = unix_now
        self._gpu_resources = gpu_resources
        self._claims = claims
        self._ratios = ratios
        self._has_runners = has_runners
        self._has_pods = has_pods
        self._bill_label = bill_label

    def request_of(self, pod: Object) -> PlacementRequest | None:
        """Return what the task of a pod asks for; None if the task is not known (yet)."""
        tracked = self._tracking.find(*find_task(pod))
        if tracked is None or tracked.task.spec is None or _is_request(tracked, pod["metadata"]["name"]):
            return None
        return tracked.task.to_request(find_avoided(tracked.judged_pods)).as_pod(tracked.task.full_demand)

    def on_task(self, item: Object, *, deleted: bool) -> None:
        """Handle a task that was added, changed or deleted."""
        key = object_key(item)
        work = partial(self._take_task, item, deleted=deleted)
        self._guard.run("task", key, work, on_fault=partial(self._reconciler.report_unread, item))

    def is_known(self, item: Object) -> bool:
        """Whether the status of a task is as PerLLM has written it; any thread may ask."""
        return self._writer.is_known(object_key(item), as_object(item.get("status")))

    def on_list(self, namespace: str | None, uids: Mapping[str, str]) -> None:
        """Forget the tasks that are not in a list of all that exist: they were deleted while no watch was open.

        Args:
            namespace: the one that was listed; None for all.
            uids: uid by namespace/name.
        """
        for tracked in self._tracking:
            task = tracked.task
            if namespace in (None, task.namespace) and uids.get(task.key) != task.uid:
                self._guard.run("task", task.key, partial(self._reconciler.forget, task.key))
        for kind, key in self._guard.troubled:
            # One that could not be read is not tracked, but retried.
            if kind == "task" and key not in uids and namespace in (None, key.partition("/")[0]):
                self._reconciler.forget(key)
        for key, stub in self._history:
            if namespace in (None, key.partition("/")[0]) and uids.get(key) != stub.uid:
                self._history.forget(key)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """Handle a pod that was added, changed or deleted; called inside the guard."""
        pod = new or old
        if pod is None:
            return
        self._releases.note(pod, is_gone=new is None)
        if new is not None and new.task_uid:
            self._take_pod(new, is_gone=False)
        elif old is not None and old.task_uid:
            self._take_pod(old, is_gone=True)

    def on_quota(self, old: Obstacle | None, _: Obstacle | None) -> None:
        """Handle a quota that was added, changed or deleted; a new one admits no pod that was denied before."""
        if old is not None:
            self._scheduler.retry_namespace(old.namespace)

    def on_namespace(self, old: Obstacle | None, new: Obstacle | None) -> None:
        """Handle a namespace that was added, relabelled or deleted."""
        if old is not None and new is not None:
            self._scheduler.retry_namespace(new.namespace)

    def on_admission(self, key: str, uid: str) -> None:
        """Handle a task about whose quota in a queue of Kueue something has changed."""
        stub = self._history.get(key)
        if self._tracking.find(key, uid) is not None:
            self._reconciler.reconcile(key)
        elif stub is not None and stub.uid == uid:
            self._report_end(stub)

    def on_claim(self, old: DeviceClaim | None, new: DeviceClaim | None) -> None:
        """Handle a claim, or a template of claims, that was added, changed or deleted."""
        if new is None:
            if old is not None:
                self._claims.remove(old)
        elif self._claims.put(new):
            for tracked in self._tracking:
                if tracked.task.namespace == new.namespace:
                    self._read_demand_again(tracked)

    def _read_demand_again(self, tracked: Tracked) -> None:
        task = tracked.task
        demand = read_task_demand(task.namespace, task.spec, self._gpu_resources, self._claims)
        if demand != task.demand:
            tracked.task = replace(task, demand=demand)
            self._scheduler.withdraw(task.key)
            self._reconciler.reconcile(task.key)

    def _take_task(self, item: Object, *, deleted: bool) -> None:
        key = object_key(item)
        tracked, stub = self._tracking.get(key), self._history.get(key)
        if deleted:
            self._drop_task(key, item["metadata"]["uid"])
            return
        known = stub if tracked is None else tracked.task
        if known is not None and known.uid == item["metadata"]["uid"]:
            self._take_status(item, tracked, stub)
            if _is_seen(item, known):
                return
        self._history.forget(key)
        if tracked is None and self._put_to_history(item):
            return
        task, status = read_task(
            item,
            self._unix_now(),
            self._gpu_resources,
            claims=self._claims,
            has_runners=self._has_runners,
            bill_label=self._bill_label,
        )
        if stub is not None and stub.uid == task.uid:
            status = read_status(stub.status)
        if task.spec is not None:
            task = replace(task, tokens_per_character=self._ratios.find(task.spec.model))
        if tracked is not None and tracked.task.uid != task.uid:
            self._reconciler.forget(key)
            tracked = None
        if tracked is None:
            tracked = self._track(task, status, item)
        else:
            tracked.task = task
        self._reconciler.reconcile(key)
        self._outcomes.learn(tracked)

    def _track(self, task: Task, status: TaskStatus, item: Object) -> Tracked:
        """Begin to follow a task, with the pods and the request that it has already."""
        self._writer.seed(task.key, read_stored(item))
        if task.spec is not None and status.received_time is None:
            self._scheduler.note_arrival(task.to_request())
        tracked = self._tracking.add(task, status)
        run = read_run(task, status)
        if run is not None and run.name in tracked.pods:
            self._reconciler.remove(tracked.pods.pop(run.name))
        for pod in [*tracked.pods.values(), *([] if run is None else [run])]:
            self._guard.run("pod", pod.key, partial(self._take_pod, pod, is_gone=False))
        return tracked

    def _take_report(self, tracked: Tracked, item: Object) -> None:
        """Handle what an agent has reported about a request."""
        key, status = tracked.task.key, adopt_report(tracked.status, item)
        if is_late_report(status, item):
            # Because of the report, the status that ends or replaces its attempt was not written.
            self._writer.observe(key, read_stored(item))
            self._writer.put(key, tracked.task.uid, status)
        if status is tracked.status:
            return
        tracked.status = status
        if tracked.task.spec is not None and status.run is not None:
            self._ratios.learn(tracked.task.spec, status.run)
        self._writer.observe(key, read_stored(item))
        run = read_run(tracked.task, status)
        if run is not None:
            self._take_pod(run, is_gone=False)

    def lose_runs(self, is_lost: Callable[[str], bool]) -> None:
        """Treat the requests on some nodes as lost: their agents do not answer any more."""
        for tracked in self._tracking:
            if tracked.status.runs_as is not RunsAs.REQUEST or tracked.status.phase.is_final:
                continue
            for run in list(tracked.pods.values()):
                if run.is_served and not run.is_finished and run.node is not None and is_lost(run.node):
                    self._guard.run("pod", run.key, partial(self._lose_run, tracked, run.name))

    def _lose_run(self, tracked: Tracked, name: str) -> None:
        """Treat a request as lost, unless its end was reported, or its task is gone, before this was repeated."""
        run = tracked.pods.get(name)
        if run is not None and run.finished_s is None and self._tracking.get(run.task_key) is tracked:
            self._reconciler.lose(tracked, run)

    def _drop_task(self, key: str, uid: str) -> None:
        tracked, stub = self._tracking.get(key), self._history.get(key)
        if stub is not None and stub.uid == uid:
            self._history.forget(key)
            self._writer.forget(key)
        elif tracked is None or tracked.task.uid == uid:
            # Even a task that could not be read has left something: a message in its status, and a retry to come.
            self._reconciler.forget(key)

    def _take_status(self, item: Object, tracked: Tracked | None, stub: Stub | None) -> None:
        """Handle what an agent has reported, and write the status again if another client has changed it."""
        key, uid, present = object_key(item), item["metadata"]["uid"], read_stored(item)
        if tracked is not None:
            self._take_report(tracked, item)
            self._writer.restore(key, uid, tracked.status, present)
        elif stub is not None and not stub.has(present):
            self._writer.seed(key, Stored(stub.status, stub.version))
            self._writer.restore(key, uid, stub.status, present)

    def _put_to_history(self, item: Object) -> bool:
        """Move a task to the history if it was over before this process saw it; return whether it was."""
        key, uid = object_key(item), item["metadata"]["uid"]
        if not self._has_pods(item["metadata"]["namespace"]):
            return False  # there may be one that has something to teach
        stub = read_stub(item, self._tracking.orphans_of(key, uid), self._history, self._learner)
        if stub is not None:
            self._tracking.drop_orphans(key)
            self._history.add(key, stub)
            self._report_end(stub)
        return stub is not None

    def _report_end(self, stub: Stub) -> None:
        self._suspensions.report_end(stub.uid, TaskPhase(stub.status["phase"]))

    def _take_pod(self, pod: Pod, *, is_gone: bool) -> None:
        if self._history.contains(pod.task_key, pod.task_uid):
            self._take_late_pod(pod, is_gone=is_gone)
            return
        tracked = self._tracking.find(pod.task_key, pod.task_uid)
        if tracked is not None and _is_surplus(tracked, pod):
            if not is_gone:
                self._reconciler.remove(pod)
            return
        pods = self._tracking.pods_of(pod)
        before = pods.get(pod.name)
        pod = self._decisions.restore(self._clocks.see(pod, before, self._unix_now()), before)
        if not is_gone and before is not None and _is_released(before, pod):
            pods[pod.name] = pod
            return
        if is_gone:
            pods.pop(pod.name, None)
            self._scheduler.retry(pod.task_key)
            self._decisions.forget(pod.uid)
            if tracked is None:
                self._tracking.drop_orphan(pod)
        else:
            pods[pod.name] = pod
            spec = tracked.task.spec if tracked is not None else None
            self._accounts.note_change(pod, before, spec.model if spec is not None else None)
        if tracked is not None:
            self._follow_pod(tracked, pod, is_gone=is_gone)

    def _take_late_pod(self, pod: Pod, *, is_gone: bool) -> None:
        """Handle a pod of a finished task; one that is still retained was created while the task ended."""
        if pod.is_retained and not is_gone:
            self._history.remove_late(pod)
        if pod.is_retained and pod.node is not None and (is_gone or pod.is_finished or pod.is_deleting):
            self._scheduler.end(pod.task_uid, pod.node)

    def _follow_pod(self, tracked: Tracked, pod: Pod, *, is_gone: bool) -> None:
        if is_gone and pod.is_finished and (tracked.ended is None or pod.attempt >= tracked.ended.attempt):
            tracked.ended = replace(pod, linger_s=None)
        self._accounts.account(tracked, pod, is_gone=is_gone)
        self._reconciler.reconcile(pod.task_key)
        if pod.node is None and pod.wait_reason:
            self._scheduler.release_room(pod.task_key)


def _is_seen(item: Object, known: Task | Stub) -> bool:
    """Whether this is only our own status coming back, as most events of a watch are."""
    metadata = item["metadata"]
    seen = metadata["uid"], metadata.get("generation", 1), bool(metadata.get("deletionTimestamp"))
    return (known.uid, known.generation, known.is_deleting) == seen


def _is_released(before: Pod, pod: Pod) -> bool:
    """Whether a pod has lost our finalizer, and nothing else about it has changed."""
    return before.is_retained and not pod.is_retained and pod == replace(before, is_retained=False)


def _is_surplus(tracked: Tracked, pod: Pod) -> bool:
    """Whether a pod is of an attempt that is a request by now: the API server was too slow to create it."""
    return not pod.is_served and _is_request(tracked, pod.name)


def _is_request(tracked: Tracked, name: str) -> bool:
    """Whether the attempt of this name is a request to a model server."""
    run = tracked.pods.get(name)
    return run is not None and run.is_served
