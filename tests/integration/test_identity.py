"""A status is written to the task it is about, never to another of its name, on a real API server."""

import asyncio
from asyncio import create_subprocess_exec
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest_asyncio

from perllm.api import names
from perllm.api.task_status import TaskStatus
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.controller.status_writer import Fields, StatusWriter, read_stored
from perllm.guard import Guard
from perllm_lab.kubernetes.control_plane import ControlPlane

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "default"
SPEC = {
    "model": "m",
    "promptTokens": 1,
    "deadline": "10s",
    "template": {"spec": {"containers": [{"name": "llm", "image": "llm"}]}},
}
PENDING = {"phase": "Pending"}
FULL = {
    "phase": "Running",
    "message": "waits for \u201cn\u201d <\u00e9&\U0001f600>",
    "receivedTime": "2026-01-02T03:04:05.000006Z",
    "nodeName": "n",
    "attempts": 1,
    "failedAttempts": [],
    "decision": {
        "policy": "cs-ucb",
        "waited": 3.0,
        "predictedLatency": 1e-3,
        "hitChance": 0.1,
        "harm": 1e-7,
        "expectedOutputTokens": 1e21,
        "score": -123456.789e-12,
        "candidates": 3,
    },
    "observed": {"energyJoules": 0.1, "latency": 1234567.891},
    "deadlineMet": False,
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "Accepted",
            "message": "",
        }
    ],
}
"""A status with all kinds of values."""

TIMEOUT_S = 10.0


@pytest_asyncio.fixture(loop_scope="session")
async def client(control_plane: ControlPlane) -> AsyncIterator[Client]:
    for arguments in (["apply", "--server-side"], ["wait", "--for=condition=Established", "--timeout=30s"]):
        process = await create_subprocess_exec(*control_plane.kubectl_argv, *arguments, "-f", str(CRDS))
        assert await process.wait() == 0
    async with Client(load_credentials(control_plane.admin_kubeconfig)) as client:
        yield client
        await client.delete(names.task_path(NAMESPACE, "twin"))


def make_writes() -> WriteQueue:
    return WriteQueue(Guard(lambda _: None, Random(0)), Outages(asyncio.get_running_loop().time), Random(0))


async def create(client: Client) -> Object:
    body = {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "metadata": {"name": "twin"}, "spec": SPEC}
    return await client.post(names.tasks_path(NAMESPACE), body)


async def test_a_status_comes_back_as_it_was_written_and_one_without_a_field_is_restored(client: Client) -> None:
    """No number, text or time may look different in the watch, or it would be taken for an edit."""
    task = await create(client)
    uid, key, path = task["metadata"]["uid"], f"{NAMESPACE}/twin", names.task_status_path(NAMESPACE, "twin")
    status = TaskStatus.model_validate(FULL)
    writes = make_writes()
    writer = StatusWriter(client, writes, on_written=lambda *_: None)
    running = asyncio.create_task(writes.run())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            writer.put(key, uid, status)
            await writes.drain()
            stored = await client.get(names.task_path(NAMESPACE, "twin"))
            assert writer.is_known(key, stored["status"])
            assert stored["status"] == status.to_object()
            edited = await client.patch(path, {"status": {"nodeName": None}}, fieldManager="kubectl-edit")
            assert not writer.is_known(key, edited["status"])
            writer.restore(key, uid, status, read_stored(edited))
            await writes.drain()
    finally:
        running.cancel()
    assert (await client.get(names.task_path(NAMESPACE, "twin")))["status"] == status.to_object()


async def test_a_status_never_reaches_another_task_of_the_name(client: Client) -> None:
    former = await create(client)
    await client.delete(names.task_path(NAMESPACE, "twin"))
    present = await create(client)
    written: list[Fields] = []
    writes = make_writes()
    writer = StatusWriter(client, writes, on_written=lambda _, fields: written.append(fields))
    running = asyncio.create_task(writes.run())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            writer.put(f"{NAMESPACE}/twin", former["metadata"]["uid"], {**PENDING, "message": "about the former"})
            await writes.drain()
            assert written == []
            writer.put(f"{NAMESPACE}/twin", present["metadata"]["uid"], PENDING)
            await writes.drain()
    finally:
        running.cancel()
    assert written == [PENDING]
    stored = (await client.get(names.task_path(NAMESPACE, "twin")))["status"]
    assert (stored["phase"], stored.get("message")) == ("Pending", None)
