import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from e2e.stage import Stage, open_stage
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.scenarios import load_scenario

SPEED = 3.0
RARE_SCRAPE_S = 2.0
"""For what does not depend on how exact energies are: scrapes of 24 nodes take processor time all the while."""

LONGEST = (
    "one_lab",
    "pair_lab",
    "test_lab_command.py",
    "test_replay.py",
    "test_upgrade.py",
    "served_lab",
    "test_chaos.py",
    "test_replicas.py",
    "test_hostile.py",
    "test_lost_nodes.py",
    "test_served_chaos.py",
    "test_instances.py",
    "test_rights.py",
)
"""What takes longest starts first, so that no worker waits for another at the end. A worker takes two tests in advance,
so files of one long test each do not follow one another.
"""

FRESH = ("test_operator_crash.py", "test_prometheus_outage.py", "test_reporting.py")
"""What counts all that its lab has done comes first there, in this order."""


def name_lab(nodeid: str) -> str:
    """Return what a test shares its lab with: its file, or its folder."""
    return nodeid.removeprefix("tests/e2e/").partition("::")[0].partition("/")[0]


class LabScheduling(LoadScopeScheduling):
    """Sends tests that share a lab to the same worker."""

    def _split_scope(self, nodeid: str) -> str:
        return name_lab(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LabScheduling:
    return LabScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    labs = [*LONGEST, *{name_lab(item.nodeid): None for item in items}]
    items.sort(key=lambda item: (labs.index(name_lab(item.nodeid)), _find_turn(item.path.name)))


def _find_turn(file: str) -> int:
    return FRESH.index(file) if file in FRESH else len(FRESH)


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    """A module that needs other settings defines a fixture of this name."""
    return LabSettings("modern", SPEED, scrape_interval_s=RARE_SCRAPE_S)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lab(
    binaries: dict[str, Path], lab_settings: LabSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Lab]:
    """One lab for the tests of a module; a test that breaks a part of it repairs it."""
    scenario = load_scenario(lab_settings.scenario_name)
    async with Lab(binaries, scenario, tmp_path_factory.mktemp("lab"), lab_settings) as lab:
        yield lab


@pytest.fixture(scope="session")
def numbers() -> "itertools.count[int]":
    return itertools.count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(lab: Lab, numbers: "itertools.count[int]") -> AsyncIterator[Stage]:
    """A namespace of the test's own; afterwards nothing in it runs, and the operator must not have logged a defect."""
    log_start = lab.operator_log.stat().st_size
    async with open_stage(lab, f"test-{next(numbers)}") as stage:
        yield stage
        await stage.clear()
    assert [line for line in stage.read_log(log_start) if _is_defect(line)] == []


def _is_defect(line: dict[str, Any]) -> bool:
    """Whether a log line reports a defect; Kopf also logs an error when the API server does not answer."""
    if line.get("logger", "").startswith("kopf._cogs.clients"):
        return "exc_info" in line
    return line.get("level") in (None, "ERROR", "CRITICAL")
