import asyncio
import inspect
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS

HERE = Path(__file__).parent
REAL = (HERE / "integration", HERE / "e2e")

NOOP_CYCLES = 8
"""How often looptime polls before it advances the time; its default of 42 takes most of the time of the unit tests."""


def pytest_configure() -> None:
    # looptime asks for the current loop even in tests that are not async; unless that is set to None, Python 3.11 then
    # creates one that is never closed.
    asyncio.set_event_loop(None)
    # How long an example takes depends more on the load of the machine than on the code.
    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Child processes belong to the event loop that started them, so tests of real parts share the loop of the fixtures.
    for item in items:
        if item.get_closest_marker("looptime") is not None:
            item.add_marker(pytest.mark.looptime(noop_cycles=NOOP_CYCLES), append=False)
        is_real = any(item.path.is_relative_to(folder) for folder in REAL)
        if is_real and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def binaries() -> dict[str, Path]:
    """Builds what is missing, which takes minutes the first time on a machine."""
    return await provide(COMPONENTS, cache_folder=default_cache_folder())
