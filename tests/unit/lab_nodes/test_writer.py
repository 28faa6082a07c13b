import asyncio

import pytest

from perllm.cluster.client import ApiError, ApiUnreachableError, PatchKind
from perllm_lab.nodes.writer import ForcedDeletion, StatusPatch, Writer

pytestmark = pytest.mark.looptime


class SlowClient:
    """Takes 1 s a request, fails with the errors it is given first, and keeps what it was asked."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = []
        self.running = self.most = 0
        self.pod = {"metadata": {"uid": "uid-a"}, "status": {"phase": "Succeeded"}}

    async def patch(self, path, body, *, kind):
        assert kind is PatchKind.STRATEGIC
        await self._answer((path, body["state"]))
        return self.pod

    async def delete(self, path, body):
        assert body["gracePeriodSeconds"] == 0
        await self._answer((path, body["preconditions"]["uid"]))

    async def _answer(self, call):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1)
        self.running -= 1
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)


async def drain(client, writes, *, workers=4, pause_s=0.0):
    writer = Writer(client, workers=workers)
    work = asyncio.create_task(writer.run())
    for key, write in writes:
        writer.submit(key, write)
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(100):
        await writer.drain()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert writer.backlog == 0


def patch(state, path="/pods/a"):
    return StatusPatch(path, {"state": state})


async def test_writes_of_one_object_keep_their_order_and_only_the_newest_waiting_one_is_sent():
    client = SlowClient()
    await drain(client, [("a", patch(1)), ("a", patch(2)), ("a", patch(3))], pause_s=0.1)
    assert client.calls == [("/pods/a/status", 1), ("/pods/a/status", 3)]


async def test_writes_of_different_objects_run_concurrently_within_bounds():
    client = SlowClient()
    await drain(client, [(f"{number}", patch(1, f"/pods/{number}")) for number in range(100)], workers=4)
    assert len(client.calls) == 100
    assert client.most == 4


@pytest.mark.parametrize("error", [ApiUnreachableError("refused"), ApiError(503, "", ""), ApiError(429, "", "")])
async def test_transient_errors_are_retried(error):
    client = SlowClient(error, error)
    await drain(client, [("a", patch(1))])
    assert client.calls == [("/pods/a/status", 1)] * 3


async def test_a_retry_yields_to_a_newer_state():
    client = SlowClient(ApiUnreachableError("refused"))
    writer = Writer(client, workers=1)
    work = asyncio.create_task(writer.run())
    writer.submit("a", patch(1))
    await asyncio.sleep(0.5)
    writer.submit("a", patch(2))
    await writer.drain()
    work.cancel()
    assert client.calls == [("/pods/a/status", 1), ("/pods/a/status", 2)]


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_permanent_errors_are_not_retried(status):
    client = SlowClient(ApiError(status, "", ""))
    await drain(client, [("a", patch(1)), ("b", patch(1, "/pods/b"))])
    assert sorted(client.calls) == [("/pods/a/status", 1), ("/pods/b/status", 1)]


async def test_a_deletion_is_limited_to_its_uid():
    client = SlowClient()
    await drain(client, [("a", ForcedDeletion("/pods/a", "uid-a"))])
    assert client.calls == [("/pods/a", "uid-a")]


async def test_the_last_status_of_a_pod_is_sent_before_its_deletion():
    client = SlowClient(ApiUnreachableError("refused"))
    await drain(client, [("a", patch(1)), ("a", patch(2)), ("a", ForcedDeletion("/pods/a", "uid-a"))])
    assert client.calls[-2:] == [("/pods/a/status", 2), ("/pods/a", "uid-a")]


async def test_a_pod_that_was_deleted_while_its_node_was_cut_off_is_removed_once_its_end_is_reported():
    client = SlowClient()
    client.pod["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:05Z"
    await drain(client, [("a", patch(1))])
    assert client.calls == [("/pods/a/status", 1), ("/pods/a", "uid-a")]
