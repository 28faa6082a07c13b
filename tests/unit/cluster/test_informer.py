import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable

import pytest

from perllm import slices
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError
from perllm.cluster.informer import Informer, keep_all, object_key, wait_for_first_lists
from perllm.cluster.outages import Outages
from perllm.guard import Guard
from unit.cluster.fake_api import FakeApiServer, Object

pytestmark = pytest.mark.looptime

PODS = "/api/v1/pods"


class Watched:
    """An informer at work and what it reported: (old value, new value) of each change, None for nothing."""

    def __init__(self, api: FakeApiServer, read: Callable[[Object], Object | None] = keep_all) -> None:
        self.api = api
        self.seen: list[tuple[str, str | None, str | None]] = []
        rng = random.Random(1)
        self.guard = Guard(lambda _: None, rng, Backoff(1000.0, 1000.0))
        self.informer = Informer(
            api,  # type: ignore[arg-type]
            PODS,
            read,
            self._note,
            kind="pod",
            guard=self.guard,
            outages=Outages(asyncio.get_running_loop().time),
            rng=rng,
        )

    def _note(self, old: Object | None, new: Object | None) -> None:
        item = new or old
        assert item is not None
        self.seen.append((item["metadata"]["name"], old and old["value"], new and new["value"]))

    async def news(self, wait_s: float = 0.05) -> list[tuple[str, str | None, str | None]]:
        await asyncio.sleep(wait_s)
        news, self.seen = self.seen, []
        return news

    @property
    def lists(self) -> int:
        return len(self.api.calls_of("GET"))


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """An informer that has seen one pod."""
    api = FakeApiServer()
    api.store(f"{PODS}/a", value="1")
    watched = Watched(api)
    running = asyncio.create_task(watched.informer.run())
    await watched.informer.synced.wait()
    assert await watched.news() == [("a", None, "1")]
    yield watched
    assert set(watched.informer.objects) == {item["metadata"]["name"] for item in (await api.get(PODS))["items"]}
    running.cancel()


async def test_an_object_that_its_listener_cannot_cope_with_is_passed_over(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.api.store(f"{PODS}/odd")
    watched.api.store(f"{PODS}/b", value="1")
    assert await watched.news() == [("b", None, "1")]
    assert "pod odd: unexpected failure" in caplog.text


async def test_lists_page_by_page() -> None:
    api = FakeApiServer()
    api.page_size = 2
    for number in range(5):
        api.store(f"{PODS}/{number}", value="1")
    watched = Watched(api)
    running = asyncio.create_task(watched.informer.run())
    assert [name for name, *_ in await watched.news()] == ["0", "1", "2", "3", "4"]
    assert watched.lists == 3
    running.cancel()


async def test_a_long_list_leaves_the_event_loop_to_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    api = FakeApiServer()
    for number in range(100):
        api.store(f"{PODS}/{number}", value="1")
    watched = Watched(api)
    running = asyncio.create_task(watched.informer.run())
    progress = set()
    while not watched.informer.synced.is_set():
        progress.add(len(watched.seen))
        await asyncio.sleep(0)
    assert len(progress) > 90
    running.cancel()


def read_value(item: Object) -> Object | None:
    """Return what a listener that is interested in the value alone needs of an object."""
    value = item["value"]
    return None if value == "nothing" else {"metadata": {"name": item["metadata"]["name"]}, "value": value}


async def test_only_what_is_read_of_an_object_is_kept_and_only_its_changes_are_reported() -> None:
    api = FakeApiServer()
    api.store(f"{PODS}/a", value="1", status="large")
    api.store(f"{PODS}/b", value="nothing")
    watched = Watched(api, read_value)
    running = asyncio.create_task(watched.informer.run())
    assert await watched.news() == [("a", None, "1")]
    assert watched.informer.objects == {"a": {"metadata": {"name": "a"}, "value": "1"}}
    api.store(f"{PODS}/a", status="another")
    api.store(f"{PODS}/b", value="2")
    api.store(f"{PODS}/a", value="nothing")
    assert await watched.news() == [("b", None, "2"), ("a", "1", None)]
    assert set(watched.informer.objects) == {"b"}
    running.cancel()


async def test_an_object_that_cannot_be_read_is_passed_over_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApiServer()
    api.store(f"{PODS}/odd")
    api.store(f"{PODS}/a", value="1")
    watched = Watched(api, read_value)
    running = asyncio.create_task(watched.informer.run())
    assert await watched.news() == [("a", None, "1")]
    assert "pod odd: unexpected failure" in caplog.text
    api.store(f"{PODS}/odd", value="1")
    assert await watched.news() == [("odd", None, "1")]
    running.cancel()


async def test_an_object_that_cannot_be_read_leaves_nothing_when_it_is_deleted() -> None:
    api = FakeApiServer()
    api.store(f"{PODS}/odd")
    watched = Watched(api, read_value)
    running = asyncio.create_task(watched.informer.run())
    await watched.news()
    assert watched.guard.troubled == [("pod", "odd")]
    api.remove(f"{PODS}/odd")
    await watched.news()
    assert watched.guard.troubled == []
    running.cancel()


async def test_reports_additions_changes_and_deletions(watched: Watched) -> None:
    watched.api.store(f"{PODS}/b", value="1")
    watched.api.store(f"{PODS}/a", value="2")
    watched.api.remove(f"{PODS}/a")
    assert await watched.news() == [("b", None, "1"), ("a", "1", "2"), ("a", "2", None)]
    assert watched.lists == 1


async def test_a_bookmark_only_moves_the_version(watched: Watched) -> None:
    watched.api.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}})
    assert await watched.news() == []
    watched.api.end_watches()
    await asyncio.sleep(1)
    assert watched.api.calls_of("WATCH")[-1][1]["resourceVersion"] == "77"


@pytest.mark.parametrize("cause", [None, ApiUnreachableError("connection lost"), ApiTimeoutError("silent")])
async def test_resumes_without_a_list_where_the_watch_ended_or_was_cut_off(
    watched: Watched, cause: ApiError | None
) -> None:
    watched.api.end_watches(cause)
    watched.api.store(f"{PODS}/a", value="2")
    assert await watched.news(1) == [("a", "1", "2")]
    assert watched.lists == 1


@pytest.mark.parametrize(
    "interruption",
    [
        lambda api: api.end_watches(ApiUnreachableError("connection lost")),
        lambda api: api.end_watches(ApiError(410, "Expired", "too old")),
        lambda api: api.send({"type": "ERROR", "object": {"code": 410, "message": "too old"}}),
    ],
    ids=["connection lost", "gone", "error event"],
)
async def test_finds_by_a_list_what_happened_while_it_was_away(watched: Watched, interruption: object) -> None:
    watched.api.store(f"{PODS}/doomed", value="1")
    await watched.news()
    interruption(watched.api)  # type: ignore[operator]
    watched.api.remove(f"{PODS}/doomed")
    watched.api.store(f"{PODS}/a", value="2")
    watched.api.store(f"{PODS}/b", value="1")
    watched.api.forget_history()
    assert await watched.news(1) == [("doomed", "1", None), ("a", "1", "2"), ("b", None, "1")]
    assert watched.lists == 2
    watched.api.store(f"{PODS}/b", value="2")
    assert await watched.news() == [("b", "1", "2")]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ERROR", "object": {"code": 500, "message": "etcd is not there"}},
        {"type": "ERROR", "object": "not even a status"},
        {"type": "MODIFIED", "object": None},
        {"type": "MODIFIED", "object": {"metadata": {}}},
        {"type": "MODIFIED"},
        {},
    ],
)
async def test_a_watch_that_says_something_odd_is_started_again_and_that_is_told_once(
    watched: Watched, event: Object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched.api.send(event)
    watched.api.store(f"{PODS}/a", value="2")
    assert await watched.news(1) == [("a", "1", "2")]
    await asyncio.sleep(10)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_a_server_whose_watches_all_break_is_not_hammered(watched: Watched) -> None:
    async def break_watches() -> None:
        while True:
            watched.api.send({"type": "ERROR", "object": {"code": 500, "message": "no"}})
            await asyncio.sleep(0.1)

    breaking = asyncio.create_task(break_watches())
    await asyncio.sleep(600)
    breaking.cancel()
    assert 40 < watched.lists < 100


async def test_goes_on_after_hours_without_an_api_server() -> None:
    api = FakeApiServer()
    api.store(f"{PODS}/a", value="1")
    watched = Watched(api)
    api.failures = [ApiUnreachableError("refused")] * 1500
    running = asyncio.create_task(watched.informer.run())
    await asyncio.sleep(8 * 3600)
    assert await watched.news() == [("a", None, "1")]
    running.cancel()


async def test_a_list_that_is_none_is_asked_for_again() -> None:
    class OddServer(FakeApiServer):
        async def get(self, path: str, **query: str) -> Object:
            answer = await super().get(path, **query)
            return answer if len(self.calls) > 2 else {"items": None, "metadata": {}}

    api = OddServer()
    api.store(f"{PODS}/a", value="1")
    watched = Watched(api)
    running = asyncio.create_task(watched.informer.run())
    assert await watched.news(5) == [("a", None, "1")]
    running.cancel()


async def test_reports_a_namesake_as_a_deletion_and_an_addition(watched: Watched) -> None:
    watched.api.end_watches(ApiUnreachableError("connection lost"))
    watched.api.remove(f"{PODS}/a")
    watched.api.store(f"{PODS}/a", value="9", metadata={"name": "a", "uid": "another"})
    assert await watched.news(1) == [("a", "1", None), ("a", None, "9")]


async def test_asks_less_and_less_often_while_every_watch_fails(watched: Watched) -> None:
    watched.api.watch_failures = [ApiError(403, "Forbidden", "cannot watch")] * 1000
    watched.api.end_watches(ApiUnreachableError("connection lost"))
    await asyncio.sleep(600)
    assert 40 < watched.lists < 100
    watched.api.watch_failures.clear()
    watched.api.store(f"{PODS}/a", value="2")
    assert await watched.news(20) == [("a", "1", "2")]


async def test_an_api_server_that_is_overloaded_is_not_asked_to_list_everything_again(watched: Watched) -> None:
    watched.api.watch_failures = [ApiError(429, "TooManyRequests", "try again later")] * 1000
    watched.api.end_watches(ApiUnreachableError("connection lost"))
    watched.api.store(f"{PODS}/a", value="2")
    await asyncio.sleep(600)
    assert watched.lists == 1
    watched.api.watch_failures.clear()
    assert await watched.news(20) == [("a", "1", "2")]


async def test_waits_for_an_api_server_that_is_not_there_yet() -> None:
    api = FakeApiServer()
    api.failures = [ApiUnreachableError("refused")] * 4
    api.store(f"{PODS}/a", value="1")
    watched = Watched(api)
    running = asyncio.create_task(watched.informer.run())
    assert not watched.informer.synced.is_set()
    await asyncio.wait_for(watched.informer.synced.wait(), 60)
    running.cancel()


@pytest.mark.parametrize(
    ("metadata", "key"),
    [({"name": "n"}, "n"), ({"name": "n", "namespace": "s"}, "s/n"), ({"name": "n", "namespace": ""}, "n")],
)
def test_keys_are_unique_in_the_cluster(metadata: dict[str, str], key: str) -> None:
    assert object_key({"metadata": metadata}) == key


@pytest.mark.looptime
async def test_a_server_that_calls_every_version_too_old_is_not_hammered(watched: Watched) -> None:
    lists = watched.lists
    watched.api.oldest_version = 10**9
    watched.api.end_watches()
    await asyncio.sleep(600)
    assert watched.lists - lists < 80


@pytest.mark.looptime
async def test_a_collection_that_cannot_be_read_keeps_no_other_waiting_for_ever() -> None:
    api = FakeApiServer()
    lists = [Informer(api, f"/{name}", keep_all, lambda *_: None) for name in ("a", "b")]  # type: ignore[arg-type]
    waiting = asyncio.create_task(wait_for_first_lists(lists, 60.0))
    await asyncio.sleep(100)
    assert not waiting.done()
    lists[1].synced.set()
    assert await waiting == ["/a"]
    lists[0].synced.set()
    assert await wait_for_first_lists(lists, 60.0) == []
