"""When it is known what Kueue has decided."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perllm.cluster.client import Object
from perllm.cluster.informer import Informer, OnChange
from perllm.kueue.watch import PATIENCE_S, KueueWatch
from perllm.kueue.workload import flavors_path, priority_classes_path, workloads_path
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_writes

pytestmark = pytest.mark.looptime


async def find_known(closed: set[str], namespaces: tuple[str, ...]) -> list[str]:
    """Return the namespaces about which all is known although these paths cannot be read."""
    api: Any = FakeApiServer()
    api.closed = closed

    def build_informer(
        kind: str, path: str, read: Callable[[Object], Any], on_change: OnChange[Any], **query: str
    ) -> Informer[Any]:
        return Informer(api, path, read, on_change, kind=kind, query=query)

    watch = KueueWatch(
        api,
        make_writes(),
        build_informer,
        namespaces=namespaces,
        on_change=lambda *_: None,
        unix_now=lambda: 1000.0,
    )
    assert not watch.workloads.is_known("a")
    running = asyncio.create_task(watch.run())
    await watch.wait_until_known()
    running.cancel()
    return [namespace for namespace in ("a", "b") if watch.workloads.is_known(namespace)]


async def test_a_namespace_that_cannot_be_read_leaves_the_others_known() -> None:
    assert await find_known({workloads_path("b")}, ("b", "a")) == ["a"]


async def test_one_list_makes_all_namespaces_known() -> None:
    assert await find_known(set(), ()) == ["a", "b"]


async def test_without_flavors_nothing_is_known() -> None:
    assert await find_known({flavors_path()}, ()) == []


async def test_without_kueue_the_operator_starts_nevertheless() -> None:
    async with asyncio.timeout(2 * PATIENCE_S):
        assert await find_known({flavors_path(), priority_classes_path(), workloads_path()}, ()) == []
