"""Whether all tasks are known, as the lists and watches of several namespaces show."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random

import pytest

from perllm.api import names
from perllm.cluster.outages import Outages
from perllm.controller.task_stream import TaskStream
from unit.controller.samples import task_object

pytestmark = pytest.mark.looptime


class SilentWatch:
    """A watch that brings nothing until it is cancelled."""

    async def iter_any(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


async def follow(stream: TaskStream) -> None:
    async for _ in stream.read_events(SilentWatch()):  # type: ignore[arg-type]
        pass


def page(*tasks: str) -> bytes:
    items = [task_object(name) for name in tasks]
    return json.dumps({"items": items, "metadata": {"resourceVersion": "1"}}).encode()


async def test_tasks_are_known_once_every_namespace_was_listed_handed_on_and_is_watched() -> None:
    stream = TaskStream(lambda *_: None, Outages(asyncio.get_running_loop().time), Random(0), watches=2)
    watches = []
    for namespace, tasks in (("a", ["t"]), ("b", [])):
        assert not stream.is_current
        stream.read_page(names.tasks_path(namespace), page(*tasks))
        watches.append(asyncio.create_task(follow(stream)))
        await asyncio.sleep(0.01)
    assert not stream.is_current
    stream.handed_on("uid-t")
    assert stream.is_current
    watches[0].cancel()
    with suppress(asyncio.CancelledError):
        await watches[0]
    assert not stream.is_current
    watches[1].cancel()
