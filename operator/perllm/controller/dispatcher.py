"""Carries out what the dispatch loop decides: creates pods, rejects tasks, explains why tasks wait."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from perllm.api import names
from perllm.cluster.client import ApiError
from perllm.controller.announcer import Announcer
from perllm.controller.conditions import Note
from perllm.controller.pod_keeper import InvalidTemplateError, PodKeeper
from perllm.controller.reconciler import Reconciler
from perllm.controller.served_runs import begin_run
from perllm.controller.stray_pods import StrayPods
from perllm.controller.task import Task
from perllm.controller.tracking import Tracked, Tracking
from perllm.guard import Guard, describe
from perllm.placement.counterfactual import Ending, Savings
from perllm.placement.placer import Placement
from perllm.scheduling.admission import (
    DEFERRED,
    NO_MODEL_SERVER,
    Admission,
    explain_deferral,
    explain_wait,
    lacks_server,
)
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.pending import Action, PendingTask, Reject, SetAside, Start, Wait
from perllm.scheduling.scheduler import Scheduler
from perllm.slices import Slices

ROUND_PAUSE_S = 0.01
"""Pause after a round, so that a burst of events causes only one more."""

ROUND_INTERVAL_S = 60.0
"""Longest time between two rounds."""


class Dispatcher:
    """Carries out decisions about waiting tasks.

    Args:
        scheduler: decides.
        wake: set whenever there may be something to decide.
        tracking: the tasks.
        reconciler: rejects tasks, and explains why they wait.
        pods: creates pods.
        stray_pods: removes those that are in the way.
        announcer: announces that a task is postponed.
        admission: explains rejections.
        savings: count what rejected tasks would have taken otherwise.
        guard: contains failures about single tasks.
        named_nodes: nodes that a pod names at most; 0 for pods that may be placed on any.
        now_s: the clock that the scheduler goes by.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        wake: asyncio.Event,
        *,
        tracking: Tracking,
        reconciler: Reconciler,
        pods: PodKeeper,
        stray_pods: StrayPods,
        announcer: Announcer,
        admission: Admission,
        savings: Savings,
        guard: Guard,
        named_nodes: int,
        now_s: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._wake = wake
        self._tracking = tracking
        self._reconciler = reconciler
        self._pods = pods
        self._stray_pods = stray_pods
        self._announcer = announcer
        self._admission = admission
        self._savings = savings
        self._guard = guard
        self._named_nodes = named_nodes
        self._now_s = now_s

    async def run(self) -> None:
        """Carry out decisions until cancelled."""
        slices = Slices()
        async with asyncio.TaskGroup() as group:
            while True:
                actions = self._scheduler.due()
                # Only now, since the call is an input itself: it sets the event.
                self._wake.clear()
                for action in actions:
                    self._carry_out(action, group)
                    await slices.pause()
                await asyncio.sleep(ROUND_PAUSE_S)
                await self._wait()

    async def _wait(self) -> None:
        """Wait until something has happened, or is due."""
        pause_s = self._scheduler.next_s() - self._now_s()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(pause_s, 0.0), ROUND_INTERVAL_S)):
                await self._wake.wait()

    def _carry_out(self, action: Action, group: asyncio.TaskGroup) -> None:
        task = action.task
        match action:
            case Start() if action.placement.request.is_served:
                self._guard.run("placement", task.key, partial(self._begin, action))
            case Start():
                self._guard.clear("placement", task.key)
                group.create_task(self._create(task, action.placement))
            case Wait():
                self._guard.run("placement", task.key, partial(self._explain_wait, action))
            case Reject():
                self._guard.run("placement", task.key, partial(self._reject, action))
            case SetAside():
                self._guard.note("placement", task.key, action.error)
                denial = PodDenial(DenialCause.FAULT, describe(action.error))
                self._guard.run("denied pod", task.key, partial(self._explain_denial, task, denial), again=False)

    def _begin(self, action: Start) -> None:
        """Begin a request: unlike a pod, it is not placed by kube-scheduler."""
        task, node = action.task, action.placement.node
        tracked = self._find(task)
        decision = self._scheduler.settle(task.uid, node) if tracked is not None and node is not None else None
        if tracked is None or decision is None:
            self._scheduler.note_abandoned(task)
            return
        self._scheduler.note_created(task)
        self._reconciler.begin(tracked, begin_run(tracked.task, task.attempt, decision))

    def _explain_wait(self, action: Wait) -> None:
        tracked = self._find(action.task)
        if tracked is None:
            return
        if action.until_s is not None:
            self._reconciler.explain(tracked, Note(DEFERRED, explain_deferral(action.until_s)))
            return
        has_no_server = lacks_server(action.placement)
        note = Note(NO_MODEL_SERVER if has_no_server else "Waiting", explain_wait(action.placement))
        if self._reconciler.explain(tracked, note) and has_no_server:
            self._announcer.unserved(tracked.task, note.message)

    def _reject(self, action: Reject) -> None:
        tracked = self._find(action.task)
        if tracked is not None:
            deadline = tracked.task.valid_spec.deadline
            message = self._admission.explain_rejection(action.placement, deadline)
            self._reconciler.reject(tracked, "Infeasible", message)
            self._note_rejection(action)

    def _note_rejection(self, action: Reject) -> None:
        request, other = action.task.request, self._scheduler.find_counterfactual(action.task.uid)
        if other is not None:
            tokens = action.placement.inference.output_tokens
            self._savings.note(
                Ending(
                    real=None,
                    other=other,
                    output_tokens=tokens,
                    due_s=request.due_s,
                    is_met=False,
                    took_s=None,
                    energy_j=0.0,
                )
            )

    async def _create(self, task: PendingTask, placement: Placement) -> None:
        """Create the pod of a task as it was decided, and report the result to the scheduler."""
        tracked = self._find(task)
        if tracked is None:
            self._scheduler.note_abandoned(task)
            return
        named = placement.name_best(0 if tracked.widened == task.attempt else self._named_nodes)
        try:
            denial = await self._pods.create(tracked.task, task.attempt, placement.node, named=named)
        except asyncio.CancelledError:
            self._scheduler.note_abandoned(task)
            raise
        except InvalidTemplateError as error:
            self._scheduler.note_created(task)
            message = f"spec.template cannot be used: {error}"
            self._guard.run("placement", task.key, partial(self._reject_template, task, message))
            return
        except Exception as error:
            self._guard.note("pod creation", task.key, error)
            denial = PodDenial(DenialCause.FAULT, describe(error))
        if denial is not None and denial.cause is DenialCause.NAME_TAKEN:
            await self._remove_stray(tracked.task, task.attempt)
        if denial is None or self._is_own(task, denial):
            self._scheduler.note_created(task)
        elif self._scheduler.note_denied(task, denial):
            self._guard.run("denied pod", task.key, partial(self._explain_denial, task, denial), again=False)

    async def _remove_stray(self, task: Task, attempt: int) -> None:
        """Remove the pod that has the name of this attempt's, if it is one that lost its label."""
        with contextlib.suppress(ApiError):  # the next attempt to create the pod tries this again
            await self._stray_pods.remove(task.namespace, names.pod_name(task.name, attempt))

    def _is_own(self, task: PendingTask, denial: PodDenial) -> bool:
        """Whether the pod that has the name is this attempt's own, created and seen earlier."""
        if denial.cause is not DenialCause.NAME_TAKEN:
            return False
        tracked = self._find(task)
        return tracked is None or names.pod_name(tracked.task.name, task.attempt) in tracked.pods

    def _reject_template(self, task: PendingTask, message: str) -> None:
        tracked = self._find(task)
        if tracked is not None:
            self._reconciler.reject(tracked, "InvalidTemplate", message)

    def _explain_denial(self, task: PendingTask, denial: PodDenial) -> None:
        tracked = self._find(task)
        if tracked is None:
            return
        note = Note(denial.cause, f"its pod cannot be created yet and will be retried: {denial.message}")
        if self._reconciler.explain(tracked, note):
            self._announcer.postponed(tracked.task, note.message)

    def _find(self, task: PendingTask) -> Tracked | None:
        return self._tracking.find(task.key, task.uid)
