import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide

HERE = Path(__file__).parent
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "prometheus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Child processes belong to the event loop that started them, so all tests here share the loop of the fixtures.
    for item in items:
        if item.path.is_relative_to(HERE) and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def binaries() -> dict[str, Path]:
    """Builds what is missing, which takes minutes the first time on a machine."""
    return await provide(PROGRAMS, cache_folder=default_cache_folder())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane(
    binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ControlPlane]:
    """Is shared by all tests: work in a namespace of your own and stop no component."""
    async with ControlPlane(binaries, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
