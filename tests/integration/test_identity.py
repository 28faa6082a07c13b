"""A status is written to the task it is about, never to another of its name, on a real API server."""

import asyncio
from asyncio import create_subprocess_exec
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest_asyncio

from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.controller.status_writer import Fields, StatusWriter
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
TIMEOUT_S = 10.0


@pytest_asyncio.fixture(loop_scope="session")
async def client(control_plane: ControlPlane) -> AsyncIterator[Client]:
    for arguments in (["apply", "--server-side"], ["wait", "--for=condition=Established", "--timeout=30s"]):
        process = await create_subprocess_exec(*control_plane.kubectl_argv, *arguments, "-f", str(CRDS))
        assert await process.wait() == 0
    async with Client(load_credentials(control_plane.admin_kubeconfig)) as client:
        yield client
        await client.delete(names.task_path(NAMESPACE, "twin"))


async def create(client: Client) -> Object:
    body = {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "metadata": {"name": "twin"}, "spec": SPEC}
    return await client.post(names.tasks_path(NAMESPACE), body)


async def test_a_status_never_reaches_another_task_of_the_name(client: Client) -> None:
    former = await create(client)
    await client.delete(names.task_path(NAMESPACE, "twin"))
    present = await create(client)
    written: list[Fields] = []
    guard = Guard(lambda _: None, Random(0))
    writes = WriteQueue(guard, Outages(asyncio.get_running_loop().time), Random(0))
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
