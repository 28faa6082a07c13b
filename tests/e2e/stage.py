"""A namespace of a test's own in a running lab, and everything that a user could see in it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from perllm.api import names
from perllm.api.task_status import RunsAs
from perllm.cluster.client import ApiError, Object
from perllm.cluster.informer import Informer, keep_all
from perllm_lab.lab import Lab
from perllm_lab.trace_replay import FINAL_PHASES, TraceReplay, as_tasks
from perllm_lab.workload.manifests import served_task_manifest, task_manifest
from perllm_lab.workload.names import FAIL_ANNOTATION
from perllm_lab.workload.requests import Request

POLL_S = 0.2
LEARNED_POLL_S = 0.5
"""Profiles are large, and written every two seconds."""

CLEAR_TIMEOUT_S = 60.0

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Stage:
    """One namespace.

    Attributes:
        seen: every state of every pod that a watch has shown, by pod name, oldest first.
        watched: the newest state of every task that a watch has shown, by name; it may lag behind `tasks`.
        moved: wakes up who waits when a watch has shown a task.
    """

    lab: Lab
    namespace: str
    truth_start: int
    seen: dict[str, list[Object]] = field(default_factory=lambda: defaultdict(list))
    watched: dict[str, Object] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def replay(self, requests: Sequence[Request], *, runs_as: RunsAs = RunsAs.POD) -> TraceReplay:
        speed = self.lab.settings.speed
        return TraceReplay(self.lab.client, as_tasks(self.namespace, speed, runs_as=runs_as), requests, speed)

    async def create(
        self,
        name: str,
        *,
        output_tokens: int = 60,
        fails: bool = False,
        containers: list[Object] | None = None,
        runs_as: RunsAs = RunsAs.POD,
        **spec: Any,
    ) -> None:
        """Create a task; `output_tokens` is the true length, which PerLLM does not see."""
        request = Request(name, self.lab.scenario.model, 0.0, 200, output_tokens, 1000, 120.0)
        write = task_manifest if runs_as is RunsAs.POD else served_task_manifest
        manifest = write(request, namespace=self.namespace)
        manifest["spec"].update(spec)
        template = manifest["spec"].get("template")
        if fails:
            template["metadata"]["annotations"][FAIL_ANNOTATION] = "true"
        if containers is not None:
            template["spec"]["containers"] = containers
        await self.lab.client.post(names.tasks_path(self.namespace), manifest)

    async def create_many(self, prefix: str, count: int, **options: Any) -> list[str]:
        created = [f"{prefix}-{number}" for number in range(count)]
        await asyncio.gather(*(self.create(name, **options) for name in created))
        return created

    async def task(self, name: str) -> Object | None:
        try:
            return await self.lab.client.get(names.task_path(self.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def tasks(self) -> dict[str, Object]:
        return _by_name(await self.lab.client.get(names.tasks_path(self.namespace)))

    async def pods(self) -> dict[str, Object]:
        return _by_name(await self.lab.client.get(self.pods_path))

    async def wait_status(self, name: str, holds: Callable[[Object], bool], *, timeout_s: float = 30.0) -> Object:
        """Wait until the status of a task satisfies a predicate; return the task."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds(self._watched_status(name)):
                    await self.moved.wait()
        except TimeoutError:
            raise AssertionError(f"after {timeout_s:g} s: {name}: {self._watched_status(name)}") from None
        return self.watched.get(name, {})

    async def wait_final(self, name: str, *, timeout_s: float = 30.0) -> Object:
        return await self.wait_status(name, lambda status: status.get("phase") in FINAL_PHASES, timeout_s=timeout_s)

    async def wait_all_final(self, names: Sequence[str], *, timeout_s: float = 60.0) -> dict[str, Object]:
        done = await asyncio.gather(*(self.wait_final(name, timeout_s=timeout_s) for name in names))
        return {task["metadata"]["name"]: task for task in done}

    async def wait_all_settled(self, names: Sequence[str], *, timeout_s: float = 60.0) -> dict[str, Object]:
        """Wait until the energy of succeeded tasks is measured, or known to be missing."""
        done = await asyncio.gather(*(self.wait_status(name, is_settled, timeout_s=timeout_s) for name in names))
        return {task["metadata"]["name"]: task for task in done}

    async def events(self, reason: str) -> dict[str, list[Object]]:
        """Return the events of a reason by the name of their task."""
        listing = await self.lab.client.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        found: dict[str, list[Object]] = defaultdict(list)
        for item in listing["items"]:
            if item["reason"] == reason:
                found[item["regarding"]["name"]].append(item)
        return found

    def read_log(self, start: int = 0) -> list[dict[str, Any]]:
        """Return the operator's log lines; a line that is not JSON, as in a traceback, becomes {"message": line}."""
        with self.lab.operator_log.open("rb") as file:
            file.seek(start)
            return [_parse_line(line) for line in file if line.strip()]

    def decisions(self) -> dict[str, list[dict[str, Any]]]:
        """Return the decisions in the log by the name of their task."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.read_log():
            namespace, _, name = str(line.get("task")).partition("/")
            if line.get("event") == "decision" and namespace == self.namespace:
                found[name].append(line)
        return found

    def truth(self) -> list[dict[str, Any]]:
        """Return what really happened to the pods of this namespace."""
        lines = self.lab.read_truth(self.truth_start)
        return [line for line in lines if line["kind"] == "pod" and line["namespace"] == self.namespace]

    def completed_requests(self) -> Counter[str]:
        """Return how often each task's request was really answered to its end; names are of all namespaces."""
        lines = self.lab.read_truth(self.truth_start)
        return Counter(line["task"] for line in lines if line["kind"] == "request" and line["outcome"] == "Succeeded")

    def completed_runs(self) -> Counter[str]:
        """Return how often each task has really run to its end."""
        return Counter(line["task"] for line in self.truth() if line["outcome"] == "Succeeded")

    async def profiles(self) -> dict[str, Object]:
        return _by_name(await self.lab.client.get(names.node_profiles_path()))

    async def learned(self) -> int:
        """Return how many outcomes the saved state contains."""
        profiles = (await self.profiles()).values()
        return sum(model["count"] for item in profiles for model in (item.get("status") or {}).get("models", ()))

    async def wait_learned(self, count: int, *, timeout_s: float) -> None:
        """Wait until the saved state contains at least so many outcomes."""
        learned = 0

        async def has_learned() -> bool:
            nonlocal learned
            learned = await self.learned()
            return learned >= count

        await wait_until(
            has_learned,
            timeout_s=timeout_s,
            poll_s=LEARNED_POLL_S,
            describe=lambda: f"{learned} of {count} outcomes learned",
        )

    def count_bound(self) -> int:
        """Return how many pods have got a node so far."""
        return sum(bool(states[-1]["spec"].get("nodeName")) for states in self.seen.values())

    async def wait_bound(self, count: int, *, timeout_s: float) -> None:
        """Wait until at least so many pods have got a node."""

        async def is_bound() -> bool:
            return self.count_bound() >= count

        await wait_until(
            is_bound, timeout_s=timeout_s, describe=lambda: f"{self.count_bound()} of {count} pods have a node"
        )

    async def switch_node(self, node: str, action: str) -> None:
        """Make a simulated node do something: cut-power, boot, refuse, accept, clock/SECONDS."""
        url = f"{self.lab.nodes_url}/nodes/{node}/{action}"
        async with aiohttp.ClientSession() as session, session.post(url) as answer:
            assert answer.status == 200

    async def metrics(self) -> dict[tuple[str, Labels], float]:
        """Return the operator's own metrics by name and labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.lab.health_url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a metric that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (known, own), value in (await self.metrics()).items() if known == name and wanted <= own)

    async def kubectl(self, *arguments: str) -> str:
        """Return what kubectl prints."""
        process = await asyncio.create_subprocess_exec(
            *self.lab.control_plane.kubectl_argv,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def clear(self) -> None:
        """Leave nothing running here."""
        client = self.lab.client
        await client.delete(names.tasks_path(self.namespace), {"propagationPolicy": "Background"})
        # The garbage collector would do it too, but it takes half a minute to discover the kinds of owners.
        await client.delete(self.pods_path)

        async def is_empty() -> bool:
            return not (await self.pods())

        await wait_until(is_empty, timeout_s=CLEAR_TIMEOUT_S, describe=lambda: f"{self.namespace} still has pods")
        await client.delete(f"/api/v1/namespaces/{self.namespace}")

    def note_pod(self, _: Object | None, new: Object | None) -> None:
        if new is not None:
            self.seen[new["metadata"]["name"]].append(new)

    def note_task(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.watched[new["metadata"]["name"]] = new
        elif old is not None:
            del self.watched[old["metadata"]["name"]]
        self.moved.set()
        self.moved.clear()

    def _watched_status(self, name: str) -> Object:
        return self.watched.get(name, {}).get("status") or {}


@asynccontextmanager
async def open_stage(lab: Lab, namespace: str) -> AsyncIterator[Stage]:
    """Make a namespace, and watch its pods and its tasks."""
    stage = Stage(lab, namespace, lab.truth_size())
    await lab.client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    await wait_until(lambda: _exists(lab, account), timeout_s=20)
    informers = [
        Informer(lab.client, stage.pods_path, keep_all, stage.note_pod),
        Informer(lab.client, names.tasks_path(namespace), keep_all, stage.note_task),
    ]
    watching = [asyncio.create_task(informer.run()) for informer in informers]
    try:
        for informer in informers:
            await informer.synced.wait()
        yield stage
    finally:
        for one in watching:
            one.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def wait_until(
    holds: Callable[[], Awaitable[bool]],
    *,
    timeout_s: float,
    poll_s: float = POLL_S,
    describe: Callable[[], str] = lambda: "the condition does not hold",
) -> None:
    """Wait until a condition holds; fail with a description of what is the case instead."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if await holds():
                    return
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise AssertionError(f"after {timeout_s:g} s: {describe()}") from None


def is_settled(status: Mapping[str, Any]) -> bool:
    if status.get("phase") != "Succeeded":
        return status.get("phase") in FINAL_PHASES
    return (status.get("observed") or {}).get("energyQuality") is not None


def condition(task: Object, kind: str) -> Object:
    """Return a condition of a task; empty when it has none of that kind."""
    conditions = (task.get("status") or {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == kind), {})


def phases(tasks: Mapping[str, Object]) -> Counter[str]:
    return Counter((task.get("status") or {}).get("phase", "none") for task in tasks.values())


def list_tracebacks(lines: Iterable[str]) -> list[str]:
    """Return the log lines that carry a traceback, at whose end stands what was raised."""
    return [line for line in lines if "Traceback (most recent" in line]


async def _exists(lab: Lab, path: str) -> bool:
    try:
        await lab.client.get(path)
    except ApiError:
        return False
    return True


def _by_name(listing: Object) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in listing["items"]}


def _parse_line(line: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {"message": line.decode(errors="replace")}
    return parsed if isinstance(parsed, dict) else {"message": line.decode(errors="replace")}
