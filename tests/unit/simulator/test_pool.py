"""Jobs in several processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from perllm_lab.claim import find_holder

SCRIPT = """
import sys
from pathlib import Path
from perllm_lab.simulator.pool import run_parallel
from unit.simulator.jobs import hold
run_parallel(hold, Path(sys.argv[1]), [3600.0], 1)
"""


def wait_for(holds: Callable[[], bool]) -> None:
    limit_s = time.monotonic() + 300.0
    while not holds():
        assert time.monotonic() < limit_s
        time.sleep(0.02)


def test_processes_end_with_the_one_that_started_them_however_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "held"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(file)], env=environment) as started:
        wait_for(lambda: started.poll() is not None or (file.exists() and file.read_text() != ""))
        assert started.poll() is None
        started.kill()
    wait_for(lambda: find_holder(file) is None)
