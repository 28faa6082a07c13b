"""Whether all tasks are known, as the lists and watches of several namespaces show."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random

import pytest

from perllm.api import names
from perllm.cluster.outages import Outages
from perllm.controller import watch
from perllm.controller.task_stream import TaskStream
from unit.controller.samples import task_object

pytestmark = pytest.mark.looptime


class SilentWatch:
    """A watch that delivers nothing until it is cancelled."""

    async def iter_any(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


async def follow(stream: TaskStream, namespace: str) -> None:
    async for _ in stream.read_events(names.tasks_path(namespace), SilentWatch()):  # type: ignore[arg-type]
        pass


def page(*tasks: str) -> bytes:
    items = [task_object(name) for name in tasks]
    return json.dumps({"items": items, "metadata": {"resourceVersion": "1"}}).encode()


async def test_tasks_are_known_once_every_namespace_is_listed_delivered_and_watched() -> None:
    stream = TaskStream(lambda *_: None, Outages(asyncio.get_running_loop().time), Random(0), watches=2)
    watches = []
    for namespace, tasks in (("a", ["t"]), ("b", [])):
        assert not stream.is_current
        stream.read_page(names.tasks_path(namespace), page(*tasks))
        watches.append(asyncio.create_task(follow(stream, namespace)))
        await asyncio.sleep(0.01)
    assert not stream.is_current
    stream.handed_on("uid-t")
    assert stream.is_current
    watches[0].cancel()
    with suppress(asyncio.CancelledError):
        await watches[0]
    assert (stream.is_current, stream.is_at_work) == (False, True)
    watches[1].cancel()


async def test_a_namespace_that_cannot_be_watched_rarely_interrupts_the_others() -> None:
    stream = TaskStream(lambda *_: None, Outages(asyncio.get_running_loop().time), Random(0), watches=2)
    stream.read_page(names.tasks_path("a"), page())
    watched = asyncio.create_task(follow(stream, "a"))
    begun_s, stop = asyncio.get_running_loop().time(), asyncio.Event()
    await watch._end_when_stuck(stream, stop)
    assert stop.is_set()
    assert asyncio.get_running_loop().time() - begun_s >= 300
    watched.cancel()


async def test_a_run_that_delivers_nothing_ends_soon() -> None:
    stream = TaskStream(lambda *_: None, Outages(asyncio.get_running_loop().time), Random(0), watches=2)
    async with asyncio.timeout(20):
        await watch._end_when_stuck(stream, asyncio.Event())
