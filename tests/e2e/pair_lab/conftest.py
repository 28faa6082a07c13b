"""Tests for which two nodes are enough: one lab for all of them, with agents, Kueue, and devices in the cloud."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.conftest import SPEED
from e2e.devices import DEVICES, SERVED_FROM_MINOR, SETTINGS, has_devices, publish_devices
from e2e.kueue_lab import KueueLab, create_queue, delete_queue
from e2e.pair import write_pair
from e2e.stage import Stage
from perllm_lab.lab import LabSettings
from perllm_lab.workload.scenarios import load_scenario

CONFIG = {"annotated_pods": {"annotate_results": True}, "nodes": SETTINGS, "kueue": {"enabled": True}}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def lab(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KueueLab]:
    scenario = write_pair(tmp_path_factory.mktemp("scenario"))
    settings = LabSettings(scenario, SPEED, operator_config=CONFIG, has_agents=True)
    async with KueueLab(binaries, load_scenario(scenario), tmp_path_factory.mktemp("lab"), settings) as lab:
        if has_devices():
            await publish_devices(lab.client, _find_cloud_node(lab), DEVICES)
        yield lab


@pytest.fixture(scope="package")
def node(lab: KueueLab) -> str:
    """The only node with devices."""
    if not has_devices():
        pytest.skip(f"devices: since Kubernetes 1.{SERVED_FROM_MINOR}")
    return _find_cloud_node(lab)


@pytest_asyncio.fixture(loop_scope="session")
async def queue(stage: Stage) -> AsyncIterator[str]:
    """A queue with quota for one task, on edge nodes."""
    yield await create_queue(stage)
    await delete_queue(stage)


def _find_cloud_node(lab: KueueLab) -> str:
    (node,) = (node.name for node in lab.scenario.nodes() if node.tier == "cloud")
    return node
