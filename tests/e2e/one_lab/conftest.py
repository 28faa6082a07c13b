"""Tests that need nothing of their own: one lab for all of them, as starting it takes longer than most of them.

It waits less long than usual for the samples of a run, so that an outage of Prometheus may be short.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.conftest import SPEED
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def lab(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    settings = LabSettings("modern", SPEED, operator_config={"energy_patience_s": 12.0})
    async with Lab(binaries, load_scenario(settings.scenario_name), tmp_path_factory.mktemp("lab"), settings) as lab:
        yield lab
