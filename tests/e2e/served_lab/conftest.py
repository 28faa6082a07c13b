"""Tests of tasks that state a prompt: one lab for all of them, with agents, in real time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

CONFIG = {
    "bill": {"label": "team"},
    "runner": {"server_url": "http://$(NODE_IP):8000/v1", "image": "registry.example.com/perllm/perllm:0.1.0"},
}


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def lab(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    settings = LabSettings("modern", 1.0, operator_config=CONFIG, has_agents=True)
    async with Lab(binaries, load_scenario(settings.scenario_name), tmp_path_factory.mktemp("lab"), settings) as lab:
        yield lab
