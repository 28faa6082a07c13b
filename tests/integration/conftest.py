from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perllm_lab.kubernetes.control_plane import ControlPlane


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane(
    binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ControlPlane]:
    """Is shared by all tests: work in a namespace of your own and stop no component."""
    async with ControlPlane(binaries, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
