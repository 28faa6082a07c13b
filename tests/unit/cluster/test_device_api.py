import asyncio
import logging
from typing import Any

import pytest

from perllm.cluster.client import ApiError
from perllm.cluster.device_api import RECHECK_S, wait_for_devices
from unit.cluster.fake_api import FakeApiServer

MISSING = ApiError(404, "NotFound", "the server could not find the requested resource")

pytestmark = pytest.mark.looptime


async def test_devices_of_an_upgraded_cluster_are_found_and_their_absence_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api: Any = FakeApiServer()
    missing = asyncio.Event()
    api.fail("GET", MISSING, MISSING, MISSING)

    with caplog.at_level(logging.WARNING):
        await wait_for_devices(api, missing.set)

    assert missing.is_set()
    assert asyncio.get_running_loop().time() == pytest.approx(3 * RECHECK_S)
    assert [record.getMessage() for record in caplog.records] == [
        "config.nodes.devices has no effect: the cluster does not serve resource.k8s.io/v1, which needs Kubernetes 1.34"
    ]


async def test_an_error_of_discovery_is_no_absence() -> None:
    api: Any = FakeApiServer()
    missing = asyncio.Event()
    api.fail("GET", ApiError(503, "ServiceUnavailable", "starting"))

    await wait_for_devices(api, missing.set)

    assert not missing.is_set()
