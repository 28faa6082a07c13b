"""Whether the cluster has an API of devices: older ones have none, or one that PerLLM does not read."""

import asyncio
import logging
from collections.abc import Callable

from perllm.api.names import DEVICE_API
from perllm.cluster.client import ApiError, Client

log = logging.getLogger(__name__)

RECHECK_S = 300.0
"""Only an upgrade of the cluster brings the API, and that takes longer."""


async def wait_for_devices(client: Client, on_missing: Callable[[], None] = lambda: None) -> None:
    """Return once the cluster serves devices; if it does not yet, log that and call `on_missing`, both once."""
    if await _are_served(client):
        return
    log.warning(
        "config.nodes.devices has no effect: the cluster does not serve %s, which needs Kubernetes 1.34", DEVICE_API
    )
    on_missing()
    await asyncio.sleep(RECHECK_S)
    while not await _are_served(client):  # noqa: ASYNC110 - discovery has no event
        await asyncio.sleep(RECHECK_S)


async def _are_served(client: Client) -> bool:
    """Return whether discovery has the API; after any other error the watch of devices reports what is wrong."""
    try:
        await client.get(f"/apis/{DEVICE_API}")
    except ApiError as error:
        return error.status != 404
    return True
