import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from perllm import supervision
from perllm.supervision import cancelled_at_exit, keep_running, serve
from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from unit.cluster.queues import make_guard


async def work_beside(work: Coroutine[Any, Any, Any], block: Coroutine[Any, Any, Any]) -> None:
    async with cancelled_at_exit() as group:
        group.create_task(work)
        await block


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("broken")


async def test_work_ends_with_the_block() -> None:
    async with cancelled_at_exit() as group:
        task = group.create_task(wait_for_ever())
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_work_that_breaks_ends_the_block_with_its_own_error() -> None:
    with pytest.raises(ValueError, match="broken"):
        await work_beside(fail(), wait_for_ever())


async def test_an_error_of_the_block_ends_the_work_and_comes_out_as_itself() -> None:
    with pytest.raises(ValueError, match="broken"):
        await work_beside(wait_for_ever(), fail())


async def test_an_answer_that_never_comes_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "SHUTDOWN_TIMEOUT_S", 0.05)
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        asked.set()
        await wait_for_ever()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hang)
    (port,) = find_free_ports(1)
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(2), serve(app, LOOPBACK, port):
            request = asyncio.ensure_future(session.get(f"http://{LOOPBACK}:{port}/"))
            await asked.wait()
        with pytest.raises(aiohttp.ClientError):
            await request


@pytest.mark.looptime
async def test_a_part_that_breaks_or_ends_is_started_again() -> None:
    begun = 0

    async def part() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ValueError("broken")
        if begun > 2:
            await wait_for_ever()

    running = asyncio.create_task(keep_running("part", part, make_guard(), Random(0)))
    await asyncio.sleep(10)
    assert begun == 3
    running.cancel()


@pytest.mark.looptime
async def test_a_part_that_breaks_again_after_it_had_worked_is_told_of_again(caplog: pytest.LogCaptureFixture) -> None:
    async def break_daily() -> None:
        await asyncio.sleep(86400)
        raise ValueError("broken")

    running = asyncio.create_task(keep_running("part", break_daily, make_guard(), Random(0)))
    await asyncio.sleep(3 * 86400)
    running.cancel()
    assert len(caplog.records) == 2
