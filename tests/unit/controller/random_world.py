"""A cluster in which anything may happen: users, nodes, an agent, an API server, its watches and the operator."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from yarl import URL

from perllm.agent.assignments import Assignment, read_assignment
from perllm.api import names
from perllm.cluster.client import ApiError, ApiUnreachableError, Object
from perllm.cluster.outages import Outages
from perllm.cluster.pod import Pod, read_pod
from perllm.cluster.times import format_time
from perllm.controller.handover import Handover
from perllm.controller.lifecycle import CATCH_UP_S
from perllm.controller.task_stream import TaskStream
from unit.cluster.fake_api import FakeApiServer
from unit.controller.one_node_cluster import PODS
from unit.controller.samples import make_own_decision, task_object
from unit.controller.test_served import ServedCluster

TASKS = names.tasks_path("lab")
KINDS = (names.TASK_KIND, "Pod")
MAX_TASKS = 4
DUE_S = 30.0
LEASE_S = 36.0
REPORT_S = 8.0
"""How long after an outage a kubelet or an agent reports what ended meanwhile, at most."""

EDITS: tuple[Object | None, ...] = (
    None,
    {"nodeName": None},
    {"nodeName": "elsewhere"},
    {"phase": None},
    {"phase": "Pending"},
    {"phase": "Succeeded"},
    {"attempts": None},
    {"attempts": 9},
    {"runsAs": None},
    {"podName": None},
    {"startTime": None},
    {"receivedTime": None},
    {"decisionRecord": None},
    {"conditions": None},
    {"message": "edited"},
    {"run": None},
    {"failedAttempts": None},
)


class Server(FakeApiServer):
    """An API server with identities, finalizers and preconditions, whose answers may be lost.

    Attributes:
        is_cut_off: whether the operator cannot reach it.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.is_cut_off = False
        self._random = random
        self._made = 0

    def events_after(self, version: int) -> list[tuple[int, str, Object]]:
        return [one for one in self._history if one[0] > version and one[2].get("kind") in KINDS]

    def items(self, kind: str) -> list[Object]:
        return [item for item in self._objects.values() if item.get("kind") == kind]

    async def post(self, path: str, body: Any, **query: str) -> Object:
        self._made += 1
        made = {**body, "metadata": {**body["metadata"], "uid": f"made-{self._made}"}}
        return await self._answer(await super().post(path, made, **query))

    async def patch(self, path: str, body: Any, **options: Any) -> Object:
        item = self.read(path.removesuffix("/status"))
        if item is not None and isinstance(body, dict):
            _check(item, body.get("metadata", {}))
        answer = await super().patch(path, body, **options)
        self.settle(path.removesuffix("/status"))
        return await self._answer(answer)

    async def delete(self, path: str, body: Any = None) -> Object:
        await self._enter("DELETE", path, body)
        item = self.read(path)
        if item is None:
            raise ApiError(404, "NotFound", path)
        _check(item, (body or {}).get("preconditions", {}))
        self.end(path)
        return await self._answer({})

    def end(self, path: str) -> None:
        """Request the deletion of an object, which is gone once nothing holds it."""
        item = self.read(path)
        if item is not None and not item["metadata"].get("deletionTimestamp"):
            grace_s = 30 if item.get("spec", {}).get("nodeName") else 0
            gone = format_time(self.now_s() + grace_s)
            self.store(path, metadata={"deletionTimestamp": gone, "deletionGracePeriodSeconds": grace_s})
        self.settle(path)

    def settle(self, path: str) -> None:
        """Remove an object that was deleted and that nothing holds any more."""
        item = self.read(path)
        if item is None or not item["metadata"].get("deletionTimestamp") or item["metadata"].get("finalizers"):
            return
        is_held = item.get("kind") == "Pod" and "nodeName" in item["spec"] and not _has_ended(item)
        if not is_held:
            self.remove(path)

    def now_s(self) -> float:
        raise NotImplementedError

    async def _enter(self, method: str, path: str, body: Any) -> None:
        if self.is_cut_off:
            raise ApiUnreachableError("cut off")
        await asyncio.sleep(self._random.choice([0.0, 0.0, 0.01, 0.3]))
        await super()._enter(method, path, body)

    async def _answer(self, answer: Object) -> Object:
        await asyncio.sleep(self._random.choice([0.0, 0.0, 0.01, 0.3]))
        if self.is_cut_off or self._random.random() < 0.02:
            raise ApiUnreachableError("the answer was lost")
        return answer


class Operator(ServedCluster):
    """An operator; its watches are those of the world."""

    async def _report_releases(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Success:
    """An attempt that succeeded, as far as the API server knows."""

    name: str
    ended_s: float


class World:
    """Everything but the test.

    Attributes:
        succeeded: the attempts that have succeeded, by task.
        edited: the last edit of statuses that are not restored yet, by task.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.server = Server(random)
        self.server.now_s = self.now_s  # type: ignore[method-assign]
        self.begun_s = asyncio.get_running_loop().time()
        self.succeeded: dict[str, list[Success]] = {}
        self.edited: dict[str, str] = {}
        self._version = 0
        self._made = 0
        self._kopf: list[Object] = []
        self._pods: dict[str, tuple[str, Pod]] = {}
        self._runs: dict[tuple[str, int], Assignment] = {}
        self._unsent: list[tuple[float, Callable[[], None]]] = []
        self._is_down = self._is_node_away = False
        self._agent_back_s = 0.0
        self._current_s = 0.0
        self.operator = self._start_operator()

    def now_s(self) -> float:
        return 1000.0 + asyncio.get_running_loop().time() - self.begun_s

    @property
    def is_over(self) -> bool:
        """Whether all tasks have ended, and all their pods are released."""
        is_held = any(pod["metadata"].get("finalizers") for pod in self.server.items("Pod"))
        return not is_held and not self.edited and all(self._are_over)

    @property
    def _are_over(self) -> list[bool]:
        phases = [(item.get("status") or {}).get("phase") for item in self.server.items(names.TASK_KIND)]
        return [phase in ("Succeeded", "Failed", "Rejected") for phase in phases]

    # The operator and what it sees.

    def _start_operator(self) -> Operator:
        operator = Operator(self.server, self.begun_s)
        loop = asyncio.get_running_loop()
        controller = operator.controller
        self._stream = TaskStream(
            lambda item, deleted: controller.on_task(item, deleted=deleted),
            controller.on_list,
            Handover(loop),
            Outages(loop.time),
            self.random,
            is_known=controller.is_known,
        )
        operator.start()
        return operator

    async def begin(self) -> None:
        await self._list()

    async def restart(self) -> None:
        """End the operator, and start another one; what it alone knows is lost."""
        if self.edited or self._is_down or self.server.is_cut_off:
            return
        self.operator.stop()
        await asyncio.sleep(self.random.choice([0.01, 1.0, 10.0]))
        self.operator, self._pods = self._start_operator(), {}
        self._be_outdated()
        await self._list()

    async def _list(self) -> None:
        self._kopf.clear()
        self._pods, known = {}, self._pods
        for item in self.server.items("Pod"):
            self._see_pod("ADDED", item, known)
        for _, pod in known.values():
            self.operator.controller.on_pod(pod, None)
        items = self.server.items(names.TASK_KIND)
        page = {"items": items, "metadata": {"resourceVersion": str(self.server._version)}}
        self._version = self.server._version
        await self._stream.read_page(URL(f"http://api{TASKS}"), json.dumps(page).encode())
        await asyncio.sleep(0)

    async def see(self) -> None:
        """Let the operator see what has happened, unless it cannot."""
        if self._is_down or self.server.is_cut_off:
            return
        for version, kind, item in self.server.events_after(self._version):
            self._version = version
            if item["kind"] == "Pod":
                self._see_pod(kind, item, self._pods)
                continue
            event = {"type": kind, "object": item}
            line = await self._stream._check(TASKS, json.dumps(event).encode())
            if json.loads(line)["type"] != "BOOKMARK":
                self._kopf.append(event)
        if self.random.random() < 0.7:
            self._flush_kopf()
        await asyncio.sleep(0)

    def _flush_kopf(self) -> None:
        newest = {event["object"]["metadata"]["uid"]: event for event in self._kopf}
        self._kopf.clear()
        for event in newest.values():
            self._stream.hand_on(event["object"], event["type"] == "DELETED")

    def _see_pod(self, kind: str, item: Object, known: dict[str, tuple[str, Pod]]) -> None:
        """Report a pod as an informer does."""
        key, uid, pod = item["metadata"]["name"], item["metadata"]["uid"], read_pod(item)
        old = known.pop(key, None)
        if old is not None and old[0] != uid:
            self.operator.controller.on_pod(old[1], None)
            old = None
        if kind == "DELETED" or pod is None:
            last = pod or (old[1] if old else None)
            if last is not None:
                self.operator.controller.on_pod(last, None)
            return
        self._pods[key] = uid, pod
        if old is None or old[1] != pod:
            self.operator.controller.on_pod(old[1] if old else None, pod)

    def go_down(self) -> None:
        """Let the API server be down."""
        self._is_down = True
        self.cut_off()

    def cut_off(self) -> None:
        """Let the operator not reach the API server."""
        self.server.is_cut_off = True
        self.operator.outdated.add("lab")
        self.operator.unlisted.add("lab")

    async def come_up(self) -> None:
        """Let an outage end."""
        if self.server.is_cut_off:
            self._is_down = self.server.is_cut_off = False
            self.operator.unlisted.clear()
            self._be_outdated()
            now_s = self.now_s()
            self._unsent = [(now_s + self.random.uniform(0.0, REPORT_S), send) for _, send in self._unsent]
            if self.random.random() < 0.5:
                await self._list()

    def _be_outdated(self) -> None:
        self.operator.outdated.add("lab")
        self._current_s = self.now_s() + CATCH_UP_S

    def tend(self) -> None:
        """Do what is due."""
        now_s = self.now_s()
        if now_s >= self._current_s and not self.server.is_cut_off:
            self.operator.outdated.clear()
        revisions = self.operator.parts.learner.revisions
        revisions.note_stored("n", revisions.current("n"))
        if not (self._is_down or self._is_node_away):
            due = [send for at_s, send in self._unsent if at_s <= now_s]
            self._unsent = [one for one in self._unsent if one[0] > now_s]
            for send in due:
                send()
        if self._agent_back_s and not self.server.is_cut_off and now_s >= self._agent_back_s - 5.0:
            self.operator.controller.lose_runs(lambda _: True)
        if now_s >= self._agent_back_s:
            self._agent_back_s = 0.0
        for item in self.server.items("Pod"):
            owner = item["metadata"]["ownerReferences"][0]
            if all(task["metadata"]["uid"] != owner["uid"] for task in self.server.items(names.TASK_KIND)):
                self.server.end(f"{PODS}/{item['metadata']['name']}")
        for item in self.server.items(names.TASK_KIND):
            wrote = self.edited.get(item["metadata"]["name"])
            if wrote is not None and self.operator.controller.is_known(item):
                del self.edited[item["metadata"]["name"]]

    # Users.

    def choose_task(self) -> Object | None:
        """Return a task that a user may change now; None if there is none."""
        tasks = [] if self._is_down else self.server.items(names.TASK_KIND)
        return self.random.choice(tasks) if tasks else None

    def create(self) -> None:
        if self._is_down or sum(not one for one in self._are_over) >= MAX_TASKS:
            return
        self._made += 1
        spec: Object = {"deadline": "24h", "retries": self.random.choice([0, 1])}
        if self.random.random() < 0.6:
            spec |= {"deadline": f"{DUE_S:g}s", "onDeadlineMissed": "Terminate"}
        if self.random.random() < 0.5:
            spec |= {"template": None, "promptTokens": None, "prompt": "Which?"}
        name = f"t{self._made % 12}"
        if self.server.read(f"{TASKS}/{name}") is not None:
            return
        made = task_object(name, uid=f"task-{self._made}", **spec)
        made["metadata"]["creationTimestamp"] = format_time(int(self.now_s()))
        self.server.store(f"{TASKS}/{name}", kind=names.TASK_KIND, **made)

    def edit_status(self, item: Object) -> None:
        edit, name = self.random.choice(EDITS), item["metadata"]["name"]
        if not item.get("status"):
            return
        if edit is not None and all(item["status"].get(field) == value for field, value in edit.items()):
            return
        self.server.store(f"{TASKS}/{name}", status=edit)
        self.edited[name] = str(edit)

    def delete_task(self, item: Object) -> None:
        self.edited.pop(item["metadata"]["name"], None)
        self.server.remove(f"{TASKS}/{item['metadata']['name']}")

    def suspend(self, item: Object, *, is_suspended: bool = True) -> None:
        if bool(item["spec"].get("suspend")) != is_suspended:
            self.change_spec(item, suspend=is_suspended)

    def resume(self, item: Object) -> None:
        self.suspend(item, is_suspended=False)

    def change_priority(self, item: Object) -> None:
        self.change_spec(item, priority=self.random.randrange(100))

    def change_spec(self, item: Object, **fields: Any) -> None:
        generation = item["metadata"]["generation"] + 1
        self.server.store(f"{TASKS}/{item['metadata']['name']}", metadata={"generation": generation}, spec=fields)

    # Nodes.

    def choose_pod(self) -> Object | None:
        """Return a pod; None if there is none."""
        pods = self.server.items("Pod")
        return self.random.choice(pods) if pods else None

    def leave(self) -> None:
        """Let the node not answer."""
        self._is_node_away = True

    def come_back(self) -> None:
        self._is_node_away = False

    def bind(self, pod: Object) -> None:
        if "nodeName" in pod["spec"] or pod["metadata"].get("deletionTimestamp"):
            return
        now_s = self.now_s()
        name = pod["metadata"]["ownerReferences"][0]["name"]
        task = self.server.read(f"{TASKS}/{name}")
        if task is None or self.server.is_cut_off:
            return
        decision = make_own_decision(decided_s=now_s, time_left_s=100.0)
        self._store_pod(
            pod,
            metadata={"annotations": {names.DECISION_ANNOTATION: decision.to_record()}},
            spec={"nodeName": "n"},
            status={"phase": "Pending"},
        )

    def start(self, pod: Object) -> None:
        if _is_bound(pod) and pod["status"]["phase"] == "Pending" and not pod["metadata"].get("deletionTimestamp"):
            running = {"running": {"startedAt": format_time(self.now_s())}}
            self._report_pod(pod, phase="Running", containerStatuses=[{"name": "llm", "state": running}])

    def refuse(self, pod: Object) -> None:
        if _is_bound(pod) and pod["status"]["phase"] == "Pending" and not pod["metadata"].get("deletionTimestamp"):
            self._report_pod(pod, phase="Failed", reason="OutOfcpu")

    def finish(self, pod: Object, exit_code: int = 0) -> None:
        if not _is_bound(pod) or pod["status"]["phase"] != "Running":
            return
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        ended_s = self.now_s()
        ended = {"exitCode": exit_code, "startedAt": started, "finishedAt": format_time(ended_s)}
        phase = "Failed" if exit_code else "Succeeded"

        def note() -> None:
            uid, name = pod["metadata"]["ownerReferences"][0]["uid"], pod["metadata"]["name"]
            if exit_code == 0:
                self.succeeded.setdefault(uid, []).append(Success(name, ended_s))

        states = [{"name": "llm", "state": {"terminated": ended}}]
        self._report_pod(pod, note, phase=phase, containerStatuses=states)

    def stop_pod(self, pod: Object) -> None:
        """Let a deleted pod end."""
        if not pod["metadata"].get("deletionTimestamp") or not _is_bound(pod) or _has_ended(pod):
            return
        if pod["status"]["phase"] == "Running":
            self.finish(pod, exit_code=143)
        else:
            self._report_pod(pod, phase="Failed")

    def succeed(self, pod: Object) -> None:
        self.finish(pod)

    def fail(self, pod: Object) -> None:
        self.finish(pod, exit_code=1)

    def delete_pod(self, pod: Object) -> None:
        if not self._is_down:
            self.server.end(f"{PODS}/{pod['metadata']['name']}")

    def _report_pod(self, pod: Object, note: Callable[[], None] = lambda: None, **status: Any) -> None:
        """Let the kubelet report a state of a pod, as soon as it can; it does not change its mind."""
        send = partial(self._send_pod, pod, note, status)
        if self._is_down or self._is_node_away:
            if not any(getattr(one, "args", ((),))[0] == pod for _, one in self._unsent):
                self._unsent.append((self.now_s(), send))
        else:
            send()

    def _send_pod(self, pod: Object, note: Callable[[], None], status: Object) -> None:
        path = f"{PODS}/{pod['metadata']['name']}"
        present = self.server.read(path)
        if present is None or present["metadata"]["uid"] != pod["metadata"]["uid"] or _has_ended(present):
            return
        note()
        self.server.store(path, status=status)
        self.server.settle(path)

    def _store_pod(self, pod: Object, **fields: Any) -> None:
        if not self._is_down:
            self.server.store(f"{PODS}/{pod['metadata']['name']}", **fields)

    # The agent of the node.

    def answer(self, end: str) -> None:
        """Let the agent begin and end one of its requests, and report that as soon as it can."""
        if self._agent_back_s:
            self._runs.clear()
            return
        if not self._is_down:
            self._take_assignments()
        if not self._runs:
            return
        found, assignment = self.random.choice(list(self._runs.items()))
        del self._runs[found]
        ended_s = self.now_s()
        if assignment.ends_at_deadline and ended_s >= assignment.due_unix_s:
            return
        send = partial(self._send_report, assignment, end, ended_s)
        if self._is_down:
            self._unsent.append((ended_s, send))
        else:
            send()

    def _take_assignments(self) -> None:
        placed = [
            item for item in self.server.items(names.TASK_KIND) if (item.get("status") or {}).get("nodeName") == "n"
        ]
        found = [one for one in map(read_assignment, placed) if one is not None]
        self._runs = {one.id: one for one in found}

    def _send_report(self, assignment: Assignment, end: str, ended_s: float) -> None:
        path = f"{TASKS}/{assignment.key.partition('/')[2]}"
        item = self.server.read(path)
        status = (item or {}).get("status") or {}
        if item is None or item["metadata"]["uid"] != assignment.uid or status.get("attempts") != assignment.attempt:
            return
        times = {"startTime": format_time(ended_s - 1.0), "endTime": format_time(ended_s)}
        run = {"attempt": assignment.attempt, "end": end, **times}
        result = {"result": {"text": "This."}} if end == "Answered" else {}
        if end == "Answered":
            name = names.pod_name(item["metadata"]["name"], assignment.attempt)
            self.succeeded.setdefault(assignment.uid, []).append(Success(name, ended_s))
        self.server.store(path, status={"run": run, **result})

    def lose_agent(self) -> None:
        if not self._agent_back_s:
            self._agent_back_s = self.now_s() + LEASE_S
            self._runs.clear()


def _check(item: Object, expected: Object) -> None:
    for field in ("uid", "resourceVersion"):
        if field in expected and item["metadata"][field] != expected[field]:
            raise ApiError(409, "Conflict", f"another {field}")


def _is_bound(pod: Object) -> bool:
    return "nodeName" in pod["spec"]


def _has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
