from collections.abc import AsyncIterator

import pytest

from unit.controller.one_node_cluster import Cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()
