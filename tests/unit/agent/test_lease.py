import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from perllm.agent.lease import AgentLease, find_ahead_s, read_written_s
from perllm.cluster.client import ApiUnreachableError, Client
from perllm.cluster.outages import Outages
from unit.agent.tasks import CREATED, CREATED_S
from unit.cluster.fake_api import FakeApiServer

pytestmark = pytest.mark.looptime

PATH = "/apis/coordination.k8s.io/v1/namespaces/perllm-system/leases/perllm-agent-n"


class Setting:
    """A Lease, and how often it became valid."""

    def __init__(self) -> None:
        self.api = FakeApiServer()
        self.api.store("/api/v1/nodes/n", metadata={"uid": "uid-of-n"})
        self.renewals = 0
        self.set_by_s = 0.0
        now = asyncio.get_running_loop().time
        self.lease = AgentLease(
            cast(Client, self.api),
            "perllm-system",
            "n",
            now=now,
            unix_now=lambda: CREATED_S + 120 + now() + self.set_by_s,
            outages=Outages(now),
            on_renewed=self.note,
        )

    def note(self) -> None:
        self.renewals += 1

    def cut_off(self) -> None:
        self.api.fail("PATCH", *[ApiUnreachableError("connection refused")] * 1000)


@asynccontextmanager
async def renew() -> AsyncIterator[Setting]:
    setting = Setting()
    assert not setting.lease.is_valid
    running = asyncio.create_task(setting.lease.run())
    await asyncio.sleep(1)
    yield setting
    running.cancel()


async def test_the_lease_is_created_and_renewed_every_ten_seconds() -> None:
    async with renew() as setting:
        await asyncio.sleep(40)

        lease = setting.api.read(PATH)
        assert lease is not None
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]) == ("n", 30)
        assert len(setting.api.calls_of("POST")) == 1
        assert len(setting.api.calls_of("PATCH")) == 5
        assert setting.lease.is_valid


async def test_the_lease_is_deleted_with_the_node() -> None:
    async with renew() as setting:
        (owner,) = (setting.api.read(PATH) or {})["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "n", "uid-of-n")


async def test_it_expires_thirty_seconds_after_the_last_renewal_and_is_valid_again_at_the_next() -> None:
    async with renew() as setting:
        setting.cut_off()
        await asyncio.sleep(28)
        assert setting.lease.is_valid
        await asyncio.sleep(2)
        assert (setting.lease.is_valid, setting.renewals) == (False, 1)

        setting.api.recover("PATCH")
        await asyncio.sleep(3)
        assert (setting.lease.is_valid, setting.renewals) == (True, 2)


async def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    async with renew() as setting:
        setting.api.slow_s = 4.0
        await asyncio.sleep(14)  # the answer to the renewal at 10 s has come
        setting.cut_off()
        await asyncio.sleep(26.5)
        assert not setting.lease.is_valid


def managed(manager: str, time: object) -> dict[str, object]:
    return {"metadata": {"managedFields": [{"manager": manager, "time": time}]}}


def test_the_answer_to_a_renewal_shows_the_time_of_the_api_server() -> None:
    assert read_written_s(managed("perllm-agent", CREATED)) == CREATED_S
    assert read_written_s(managed("someone", CREATED)) is None
    assert read_written_s(managed("perllm-agent", "soon")) is None
    assert read_written_s({}) is None


@pytest.mark.parametrize(("written", "ahead_s"), [("2026-01-01T00:00:00Z", 130.0), ("2026-01-01T00:02:10Z", 0.0)])
async def test_the_clock_of_the_node_is_compared_with_that_of_the_api_server(written: str, ahead_s: float) -> None:
    async with renew() as setting:
        setting.api.store(PATH, **managed("perllm-agent", written))
        await asyncio.sleep(10)
        own_s = CREATED_S + 120 + asyncio.get_running_loop().time()
        assert setting.lease.cluster_now() == pytest.approx(own_s - ahead_s, abs=1.0)


@pytest.mark.parametrize("set_by_s", [7200.0, -7200.0])
async def test_a_clock_that_is_set_between_two_renewals_changes_no_deadline(set_by_s: float) -> None:
    async with renew() as setting:
        setting.api.store(PATH, **managed("perllm-agent", CREATED))
        await asyncio.sleep(10)
        before_s = setting.lease.cluster_now()
        setting.set_by_s = set_by_s
        await asyncio.sleep(5)
        assert setting.lease.cluster_now() == pytest.approx(before_s + 5)


@pytest.mark.parametrize(
    ("answered_s", "took_s", "ahead_s"), [(104.8, 4.5, 0.0), (104.8, 0.1, 4.25), (97.0, 0.1, -3.55), (98.0, 0.1, -2.55)]
)
def test_a_slow_answer_is_no_wrong_clock(answered_s: float, took_s: float, ahead_s: float) -> None:
    assert find_ahead_s(100.0, answered_s, took_s) == pytest.approx(ahead_s)
