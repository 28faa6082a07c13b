"""An upgrade from an earlier version and the rollback lose nothing, leave nothing, and learn nothing twice."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from e2e.upgrade.run import EARLIER, run_upgrade
from e2e.upgrade.sources import HistoryError

TASKS = 60
REQUIRE = "PERLLM_REQUIRE_HISTORY"


async def test_an_upgrade_and_a_rollback_with_tasks_under_way(tmp_path: Path) -> None:
    try:
        findings = await run_upgrade(EARLIER, TASKS, tmp_path, print)
    except HistoryError as error:
        if os.environ.get(REQUIRE):
            raise
        pytest.skip(str(error))
    Console(width=120).print(findings.render())
    assert findings.list_problems() == []
