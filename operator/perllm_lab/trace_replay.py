"""Sends the requests of a trace to a cluster at their times, open loop, and watches them to their end."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perllm.api import names
from perllm.api.task import OnDeadlineMissed, OnInfeasible
from perllm.api.task_status import RunsAs, TaskPhase
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.informer import Informer, keep_all
from perllm_lab.workload.manifests import pod_manifest, served_task_manifest, task_manifest
from perllm_lab.workload.requests import Request

FINAL_PHASES = frozenset(phase.value for phase in TaskPhase if phase.is_final)
STRICT = {"onInfeasible": OnInfeasible.REJECT.value, "onDeadlineMissed": OnDeadlineMissed.TERMINATE.value}
CREATE_ATTEMPTS = 30
RETRY_S = 0.5
CLEAR_TIMEOUT_S = 120.0


class TraceReplayError(Exception):
    """A replay could not be completed."""


@dataclass(frozen=True, slots=True)
class SubmissionKind:
    """What a request becomes: a task for PerLLM, or a bare pod for the plain kube-scheduler."""

    path: str
    build: Callable[[Request], Object]


def as_tasks(namespace: str, speed: float, *, strict: bool = False, runs_as: RunsAs = RunsAs.POD) -> SubmissionKind:
    """Return requests as LLMInferenceTasks; strict ones may be rejected, and are ended at their deadline."""
    write = served_task_manifest if runs_as is RunsAs.REQUEST else task_manifest

    def build(request: Request) -> Object:
        manifest = write(request, namespace=namespace, speed=speed)
        manifest["spec"].update(STRICT if strict else {})
        return manifest

    return SubmissionKind(names.tasks_path(namespace), build)


def as_pods(namespace: str) -> SubmissionKind:
    """Return requests as bare pods of the cluster's own scheduler."""
    return SubmissionKind(f"/api/v1/namespaces/{namespace}/pods", lambda one: pod_manifest(one, namespace=namespace))


@dataclass(slots=True)
class TraceReplay:
    """One replay, while it runs.

    Attributes:
        created_s: Unix time at which each request was sent, by name.
        objects: the present objects, by name.
        sent_late_s: by how much each request was sent too late, in real seconds.
        created_in_s: after how long the API server had created each, in real seconds.
    """

    client: Client
    kind: SubmissionKind
    requests: Sequence[Request]
    speed: float
    created_s: dict[str, float] = field(default_factory=dict)
    objects: dict[str, Object] = field(default_factory=dict)
    sent_late_s: list[float] = field(default_factory=list)
    created_in_s: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def phases(self) -> Mapping[str, int]:
        """How many objects are in which phase."""
        return Counter(_phase(item) for item in self.objects.values())

    @property
    def finished(self) -> int:
        """How many requests have reached a final phase."""
        return sum(count for phase, count in self.phases.items() if phase in FINAL_PHASES)

    async def run(self, *, timeout_s: float, on_progress: Callable[["TraceReplay"], None] = lambda _: None) -> None:
        """Send everything and wait until all have ended.

        Raises:
            TraceReplayError: not all ended within `timeout_s` after the last was sent, or one could not be sent.
        """
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow(group, timeout_s, on_progress)
        except* TraceReplayError as errors:
            raise next(_leaves(errors)) from None
        on_progress(self)

    async def wait_measured(self, *, timeout_s: float) -> bool:
        """Wait until every succeeded task has its energy, measured or known to be missing; False after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            listing = await self.client.get(self.kind.path)
            self.objects = {item["metadata"]["name"]: item for item in listing["items"]}
            if all(_is_settled(item) for item in listing["items"]):
                return True
            await asyncio.sleep(0.5)
        return False

    async def clear(self) -> None:
        """Delete everything and wait until its pods are gone too."""
        namespace = self.kind.path.split("/namespaces/")[1].split("/")[0]
        async with asyncio.timeout(CLEAR_TIMEOUT_S):
            while not await self._delete_all():
                pass
            while True:
                if not (await self.client.get(f"/api/v1/namespaces/{namespace}/pods", limit="1"))["items"]:
                    return
                await asyncio.sleep(0.3)

    async def _follow(
        self, group: asyncio.TaskGroup, timeout_s: float, on_progress: Callable[["TraceReplay"], None]
    ) -> None:
        informer = Informer(self.client, self.kind.path, keep_all, self._see)
        watching = group.create_task(informer.run())
        await informer.synced.wait()
        ticking = group.create_task(self._tick(on_progress))
        await self._send_all()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_for(lambda: self.finished >= len(self.requests))
        except TimeoutError as error:
            raise TraceReplayError(f"after {timeout_s:.0f} s not all have ended: {dict(self.phases)}") from error
        finally:
            watching.cancel()
            ticking.cancel()

    async def _delete_all(self) -> bool:
        """Return whether all is deleted; a thousand objects may take the API server longer than a request may last."""
        try:
            await self.client.delete(self.kind.path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if not error.is_transient:
                raise
            return False
        return True

    async def _send_all(self) -> None:
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for request in self.requests:
                due_s = start_s + request.at_s / self.speed
                await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
                self.sent_late_s.append(time.monotonic() - due_s)
                group.create_task(self._send(request))

    async def _send(self, request: Request) -> None:
        self.created_s[request.name] = time.time()
        body, start_s = self.kind.build(request), time.monotonic()
        for _ in range(CREATE_ATTEMPTS):
            try:
                await self.client.post(self.kind.path, body)
                self.created_in_s.append(time.monotonic() - start_s)
                return
            except ApiError as error:
                if error.status == 409:
                    return
                if not error.is_transient:
                    raise TraceReplayError(f"{request.name} was denied: {error}") from error
            await asyncio.sleep(RETRY_S)
        raise TraceReplayError(f"{request.name} could not be sent: the API server does not answer")

    def _see(self, old: Object | None, new: Object | None) -> None:
        item: dict[str, Any] = new or old or {}
        name = item["metadata"]["name"]
        if new is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = item
        self.changed.set()

    async def _wait_for(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.changed.clear()
            await self.changed.wait()
            await asyncio.sleep(0.05)

    async def _tick(self, on_progress: Callable[["TraceReplay"], None]) -> None:
        while True:
            on_progress(self)
            await asyncio.sleep(0.5)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _phase(item: Object) -> str:
    return str((item.get("status") or {}).get("phase", TaskPhase.PENDING.value))


def _is_settled(item: Object) -> bool:
    status = item.get("status") or {}
    if status.get("phase") != TaskPhase.SUCCEEDED.value:
        return status.get("phase") in FINAL_PHASES
    return (status.get("observed") or {}).get("energyQuality") is not None
