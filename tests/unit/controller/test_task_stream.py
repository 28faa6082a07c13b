"""Whether all tasks are known, as the lists and watches of several namespaces show."""

import asyncio
import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from yarl import URL

from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.outages import Outages
from perllm.controller import watch
from perllm.controller.handover import Handover
from perllm.controller.task_stream import IsKnown, OnTask, TaskStream
from unit.controller.samples import task_object

pytestmark = pytest.mark.looptime


class SilentWatch:
    """A watch that delivers nothing until it is cancelled."""

    async def readany(self) -> bytes:
        await asyncio.Event().wait()
        return b""


def make_stream(on_task: OnTask = lambda *_: None, is_known: IsKnown = lambda _: True) -> TaskStream:
    loop = asyncio.get_running_loop()
    handover, outages = Handover(loop), Outages(loop.time)
    return TaskStream(on_task, lambda *_: None, handover, outages, Random(0), is_known=is_known, watches=2)


async def follow(stream: TaskStream, namespace: str) -> None:
    async for _ in stream.read_events(names.tasks_path(namespace), SilentWatch()):  # type: ignore[arg-type]
        pass


async def read(stream: TaskStream, namespace: str, *tasks: str) -> None:
    items = [task_object(name) for name in tasks]
    content = json.dumps({"items": items, "metadata": {"resourceVersion": "1"}}).encode()
    await stream.read_page(URL(f"http://api{names.tasks_path(namespace)}"), content)


async def test_tasks_are_known_once_every_namespace_is_listed_taken_in_and_watched() -> None:
    stream, watches = make_stream(), []
    for namespace, tasks in (("a", ["t"]), ("b", [])):
        watches.append(asyncio.create_task(follow(stream, namespace)))
        await asyncio.sleep(0.01)
        assert not stream.is_current
        await read(stream, namespace, *tasks)
        assert not stream.is_current
    await asyncio.sleep(0.01)
    assert stream.is_current
    watches[0].cancel()
    with suppress(asyncio.CancelledError):
        await watches[0]
    await asyncio.sleep(0.01)
    assert (stream.is_current, stream.watched) == (False, 1)
    watches[1].cancel()


async def test_tasks_of_a_namespace_are_known_although_those_of_another_cannot_be_listed() -> None:
    stream = make_stream()
    watched = asyncio.create_task(follow(stream, "a"))
    await read(stream, "a", "t")
    assert not stream.knows("a")
    await asyncio.sleep(0.01)
    assert (stream.is_current, stream.knows("a"), stream.knows("b")) == (False, True, False)
    watched.cancel()


async def test_all_namespaces_are_known_by_one_list() -> None:
    stream = make_stream()
    path = f"/k8s/clusters/one{names.tasks_path()}"
    watched = asyncio.create_task(anext(stream.read_events(path, SilentWatch())))  # type: ignore[arg-type]
    await stream.read_page(URL(f"http://api{path}"), b'{"items": [], "metadata": {"resourceVersion": "1"}}')
    await asyncio.sleep(0.01)
    assert stream.knows("a")
    watched.cancel()


async def test_a_namespace_that_cannot_be_watched_rarely_interrupts_the_others() -> None:
    stream = make_stream()
    await read(stream, "a")
    watched = asyncio.create_task(follow(stream, "a"))
    begun_s, stop = asyncio.get_running_loop().time(), asyncio.Event()
    await watch._end_when_stuck(stream, stop)
    assert stop.is_set()
    assert asyncio.get_running_loop().time() - begun_s >= 300
    watched.cancel()


async def test_a_run_that_delivers_nothing_ends_soon() -> None:
    async with asyncio.timeout(1.5 * watch.STUCK_S):
        await watch._end_when_stuck(make_stream(), asyncio.Event())


async def test_tasks_are_watched_without_a_break_since_the_last_outage_and_not_since_the_last_watch_was_opened() -> (
    None
):
    loop, stream = asyncio.get_running_loop(), make_stream()
    first = asyncio.create_task(follow(stream, "a"))
    await read(stream, "a", "t")
    await asyncio.sleep(1.0)
    begun_s = loop.time() - 1.0
    second = asyncio.create_task(follow(stream, "a"))
    await asyncio.sleep(5.0)
    first.cancel()
    await asyncio.sleep(5.0)
    assert stream.find_since_s("a") == pytest.approx(begun_s, abs=0.1)
    second.cancel()
    await asyncio.sleep(1.0)
    assert stream.find_since_s("a") is None
    third = asyncio.create_task(follow(stream, "a"))
    await asyncio.sleep(1.0)
    assert stream.find_since_s("a") == pytest.approx(loop.time() - 1.0, abs=0.1)
    third.cancel()


def to_line(**status: Any) -> bytes:
    """Return the event of a change of task t."""
    item = task_object(status=status)
    item["metadata"]["resourceVersion"] = "2"
    return json.dumps({"type": "MODIFIED", "object": item}).encode()


async def test_kopf_gets_what_others_write_to_a_status_and_of_our_own_writes_the_version_alone() -> None:
    stream, path = make_stream(is_known=lambda item: item["status"] == {"phase": "Pending"}), names.tasks_path("lab")
    await read(stream, "lab", "t")
    assert json.loads(await stream._check(path, to_line(phase="Pending")))["type"] == "BOOKMARK"
    assert json.loads(await stream._check(path, to_line()))["type"] == "MODIFIED"


async def test_the_report_of_an_agent_goes_straight_to_the_controller() -> None:
    taken: list[Object] = []
    stream = make_stream(lambda item, _: taken.append(item), lambda _: False)
    await read(stream, "lab", "t")
    line = await stream._check(names.tasks_path("lab"), to_line(run={"attempt": 1}))
    await asyncio.sleep(0.01)
    assert json.loads(line)["type"] == "BOOKMARK"
    assert taken[-1]["status"] == {"run": {"attempt": 1}}
