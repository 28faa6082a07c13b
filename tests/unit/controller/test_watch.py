"""Kopf with a server that misbehaves: the watch continues within seconds, and nothing is missed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from random import Random

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from perllm.api import names
from perllm.cluster import outages
from perllm.cluster.client import Object
from perllm.cluster.credentials import Credentials
from perllm.controller import watch
from perllm.controller.handover import Handover
from perllm.controller.task_stream import TaskStream
from perllm.controller.watch import TaskWatch
from perllm.metrics import OperatorMetrics
from perllm.supervision import serve
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from unit.controller.fake_task_server import FakeTaskServer

POLL_S = 0.02
QUICKLY_SETTLED_S = 0.5
DEEP = "[" * 1100 + "]" * 1100


def make_stream() -> TaskStream:
    loop = asyncio.get_running_loop()
    return TaskStream(print, print, Handover(loop), outages.Outages(loop.time), Random(0), is_known=lambda _: True)


class Watched:
    """A watch of a fake server, and what it has delivered: each task with whether the watch was ready by then."""

    def __init__(self, server: FakeTaskServer, port: int) -> None:
        self.server = server
        self.seen: dict[str, Object] = {}
        self.sights: list[tuple[str, bool]] = []
        self.listed: Mapping[str, str] = {}
        credentials = Credentials(f"http://{LOOPBACK}:{port}", None, None, None, lambda: None)
        failing = outages.Outages(asyncio.get_running_loop().time)
        self.metrics = OperatorMetrics(CollectorRegistry())
        self.watch = TaskWatch(
            credentials, self._note, self._note_list, self.metrics, failing, Random(0), is_known=lambda _: True
        )

    def _note(self, item: Object, deleted: bool) -> None:
        self.seen[item["metadata"]["name"]] = item
        self.sights.append((item["metadata"]["name"], self.watch.is_ready))

    def _note_list(self, namespace: str | None, uids: Mapping[str, str]) -> None:
        assert namespace is None
        self.listed = uids

    async def until(self, holds: Callable[[], bool], timeout_s: float = 8.0) -> None:
        for _ in range(round(timeout_s / POLL_S)):
            if holds():
                return
            await asyncio.sleep(POLL_S)
        pytest.fail(f"not so after {timeout_s:g} s")

    async def knows(self, name: str) -> None:
        await self.until(lambda: name in self.seen)


@pytest.fixture
async def starting() -> AsyncIterator[Watched]:
    """A watch of a server that has task t, not yet started."""
    server = FakeTaskServer()
    server.store("t")
    (port,) = find_free_ports(1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve(server.build_app(), LOOPBACK, port))
        watched = Watched(server, port)
        stack.push_async_callback(watched.watch.stop)
        yield watched


@pytest.fixture
async def watched(starting: Watched) -> Watched:
    """A watch that knows of task t."""
    assert not starting.watch.is_ready
    starting.watch.start()
    await starting.until(lambda: starting.watch.is_ready)
    assert set(starting.seen) == {"t"}
    return starting


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is not there"}}',
        b"<html>a proxy's page</html>",
        b'{"type":"MODIFIED","object":{"metadata":null}}',
        b'{"type":"MODIFIED"}',
        b"[]",
    ],
    ids=["error 500", "no JSON", "no metadata", "no object", "a list"],
)
async def test_a_malformed_event_leads_to_a_new_list_and_is_logged_once(
    watched: Watched, line: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "SETTLED_S", QUICKLY_SETTLED_S)
    caplog.set_level(logging.INFO, "perllm")
    for name in ("missed", "missed too"):
        watched.server.store(name)
        watched.server.send(line)
        await watched.knows(name)
        await watched.until(lambda: watched.watch.is_ready)
    await asyncio.sleep(QUICKLY_SETTLED_S)
    watched.server.create("later")
    await watched.knows("later")
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_tasks_nested_beyond_all_parsers_arrive_and_so_do_the_others(watched: Watched) -> None:
    item = watched.server.store("deep", template={"spec": {"containers": [{"name": "llm"}], "x": "DEEP"}})
    watched.server.send(watched.server._event("ADDED", item).replace(b'"DEEP"', DEEP.encode()))
    watched.server.create("shallow")
    await watched.knows("deep")
    await watched.knows("shallow")
    assert watched.seen["deep"]["spec"]["model"] == "m"


async def test_the_watch_is_ready_once_the_controller_has_taken_in_every_page(
    starting: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PAGE_SIZE", 2)
    for number in range(5):
        starting.server.store(str(number))
    starting.watch.start()
    await starting.until(lambda: starting.watch.is_ready)
    assert starting.sights == [(name, False) for name in ("t", "0", "1", "2", "3", "4")]
    assert len(starting.listed) == 6
    assert starting.server.lists == 1


async def test_statuses_that_come_back_are_not_handed_on(watched: Watched) -> None:
    watched.server.change("t", annotations={"unlike": "a generation"})
    watched.server.change("t", generation=2)
    watched.server.change("t")
    watched.server.change("t", deletionTimestamp="1970-01-01T00:16:50Z")
    watched.server.create("later")
    await watched.until(lambda: len(watched.sights) >= 4)
    assert sorted(name for name, _ in watched.sights) == ["later", "t", "t", "t"]


async def test_a_watch_that_ends_or_falls_silent_goes_on_from_its_last_version_without_a_list(
    starting: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_SILENCE_S", 0.5)
    starting.watch.start()
    await starting.until(lambda: starting.watch.is_ready)
    starting.server.change("t")
    starting.server.end_watch()
    await starting.until(lambda: len(starting.server.watched_from) >= 4 and starting.watch.is_ready)
    assert starting.server.lists == 1
    assert starting.server.watched_from == ["2", *["3"] * (len(starting.server.watched_from) - 1)]


async def test_tasks_that_were_deleted_unseen_are_not_in_the_list_that_follows(watched: Watched) -> None:
    assert watched.listed == {"lab/t": "uid-t"}
    watched.server.tasks.clear()
    watched.server.send(b'{"type":"ERROR","object":{"kind":"Status","code":410}}')
    await watched.until(lambda: watched.listed == {})


async def test_the_watch_is_not_ready_while_it_cannot_read(watched: Watched) -> None:
    watched.server.send(b"no event at all")
    for _ in range(6):
        watched.server.send(b"nor this")
    await watched.until(lambda: not watched.watch.is_ready)
    watched.server.create("later")
    await watched.until(lambda: watched.watch.is_ready and "later" in watched.seen, timeout_s=15)


async def test_a_start_that_ends_only_a_part_of_kopf_is_repeated(
    starting: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STUCK_S", 2.0)
    starting.server.failures = 1
    starting.watch.start()
    await starting.until(lambda: starting.watch.is_ready, timeout_s=20)
    assert set(starting.seen) == {"t"}


def read_topics(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the topics that the log reports as failing, or as working again."""
    own = [record for record in caplog.records if record.name.startswith("perllm")]
    return [record.getMessage().partition(":")[0] for record in own]


async def test_an_api_server_that_does_not_answer_is_logged_once_however_often_kopf_is_restarted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "perllm")
    monkeypatch.setattr(watch, "STUCK_S", 0.4)
    monkeypatch.setattr(watch, "CHECK_INTERVAL_S", 0.2)
    server = FakeTaskServer()
    (port,) = find_free_ports(1)
    watched = Watched(server, port)
    watched.watch.start()
    await watched.until(lambda: watched.metrics.process.watch_restarts._value.get() > 0, timeout_s=20)
    assert read_topics(caplog) == ["API server"]
    monkeypatch.setattr(watch, "STUCK_S", 20.0)
    async with serve(server.build_app(), LOOPBACK, port):
        await watched.until(lambda: watched.watch.is_ready, timeout_s=20)
        server.end_watch()
        await watched.watch.stop()
    assert read_topics(caplog) == ["API server", "API server"]


async def test_a_request_that_is_cancelled_is_not_a_failure_of_the_api_server(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application(handler_args={"handler_cancellation": True})
    app.router.add_get("/", hang)
    (port,) = find_free_ports(1)
    credentials = Credentials(f"http://{LOOPBACK}:{port}", None, None, None, lambda: None)
    stream = make_stream()
    async with serve(app, LOOPBACK, port), stream.build_session(credentials) as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.get(f"{credentials.server}/"), 0.2)
    assert read_topics(caplog) == []


async def test_a_namespace_that_may_not_be_read_is_logged_once_while_others_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "perllm")
    tasks = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.TASK_PLURAL}"

    async def forbid(_: web.Request) -> web.Response:
        return web.json_response({}, status=403)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"items": [], "metadata": {}})

    app = web.Application()
    app.router.add_get(tasks.format("closed"), forbid)
    app.router.add_get(tasks.format("open"), answer)
    (port,) = find_free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    credentials = Credentials(url, None, None, None, lambda: None)
    stream = make_stream()
    async with serve(app, LOOPBACK, port), stream.build_session(credentials) as http:
        for namespace in ("closed", "open") * 3:
            await (await http.get(url + tasks.format(namespace))).read()
    assert len(caplog.records) == 1
    assert "watch of tasks in namespace closed: the API server answers 403" in caplog.text
