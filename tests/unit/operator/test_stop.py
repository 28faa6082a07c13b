import asyncio

import pytest
from prometheus_client import CollectorRegistry

from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials
from perllm.config import Config
from perllm.operator import Operator
from perllm.wiring import Wiring

NOBODY = Credentials("http://127.0.0.1:9", None, None, None, lambda: None)


async def test_a_start_that_waits_for_the_api_server_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    async with Client(NOBODY) as client:
        operator = Operator(Wiring(Config(), client, NOBODY, CollectorRegistry()))
        running = asyncio.create_task(operator.run())
        async with asyncio.timeout(10):
            while "API server: Unreachable" not in caplog.text:  # noqa: ASYNC110 - there is no event for the change
                await asyncio.sleep(0.05)
        operator.stop()
        async with asyncio.timeout(5):
            await running
