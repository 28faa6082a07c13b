"""An overview that follows the API server."""

import asyncio
from typing import cast

import pytest

from perllm.api import names
from perllm.cluster.client import ApiUnreachableError, Client
from perllm.overview.watch import Watch
from unit.cluster.fake_api import FakeApiServer
from unit.overview.objects import make_done, make_placed


@pytest.mark.looptime
async def test_it_shows_what_has_changed_since() -> None:
    api = FakeApiServer()
    api.store(names.task_path("team", "hello"), **make_placed())
    watch = Watch(cast(Client, api), "team", has_nodes=False)
    shown: list[list[str]] = []

    def show() -> None:
        shown.append([task.status.phase.value for task in watch.tasks])
        if len(shown) == 1:
            api.store(names.task_path("team", "hello"), **make_done())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.5):
            await watch.run(show, interval_s=1.0)

    assert shown == [["Running"]] + [["Succeeded"]] * 3


@pytest.mark.looptime
async def test_it_knows_whether_it_is_current() -> None:
    api = FakeApiServer()
    watch = Watch(cast(Client, api), "team", has_nodes=True)
    seen: list[bool] = []

    def show() -> None:
        seen.append(watch.is_current)
        if len(seen) == 1:
            gone = ApiUnreachableError("no answer")
            api.watch_failures += [gone] * 4
            api.end_watches(gone)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30.0):
            await watch.run(show, interval_s=1.0)
    assert seen[:2] == [True, False]
    assert seen[-1]


@pytest.mark.looptime
async def test_a_pipe_that_is_closed_ends_it_by_an_error_of_its_own() -> None:
    def show() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await Watch(cast(Client, FakeApiServer()), None, has_nodes=False).run(show, interval_s=1.0)


@pytest.mark.looptime
async def test_nodes_that_may_not_be_read_are_not_asked_for() -> None:
    api = FakeApiServer()
    watch = Watch(cast(Client, api), None, has_nodes=False)
    await watch.run(lambda: None, interval_s=None)
    assert {path for path, _ in api.calls_of("GET")} == {names.tasks_path()}
