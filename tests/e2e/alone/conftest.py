"""Tests that compare latencies or energy so closely that no other may run at the same time: one lab for all of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SPEED, SCRAPE_S = 2.5, 0.5


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def lab(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    settings = LabSettings("modern", SPEED, scrape_interval_s=SCRAPE_S)
    async with Lab(binaries, load_scenario(settings.scenario_name), tmp_path_factory.mktemp("lab"), settings) as lab:
        yield lab
