import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from perllm.supervision import cancelled_at_exit


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
