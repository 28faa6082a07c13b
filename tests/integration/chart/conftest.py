from collections.abc import Callable

import pytest
import pytest_asyncio

from integration.chart.helm import Helm, Object, load_values
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from programs.modules import list_test_modules


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def helm() -> Helm:
    """Built if it is not installed, which takes minutes the first time on a machine."""
    return Helm(
        (await provide(["helm"], cache_folder=default_cache_folder(), more_modules=list_test_modules()))["helm"]
    )


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[[str], list[Object]]:
    """Render the values of a file in `values`."""
    return lambda name: helm.render(load_values(name))
