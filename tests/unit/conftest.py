from collections.abc import AsyncIterator

import aiohttp
import pytest

from perllm_lab.report import charts
from unit.completions.model_server import FakeModelServer


@pytest.fixture
async def model_server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer.serve() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts of a report empty, which take most of the time of a page."""
    monkeypatch.setattr(charts, "_draw", lambda *_: "<svg></svg>")
