import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perllm_lab.kubernetes.process import Process, ProcessError

PARENT = """
    import asyncio, sys
    from pathlib import Path
    from perllm_lab.kubernetes.process import Process

    async def main():
        child = Process("child", ["sleep", "600"], log_file=Path(sys.argv[1]))
        await child.start()
        print(child.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


def shell(script: str, log_file: Path) -> Process:
    return Process("child", ["sh", "-c", script], log_file=log_file)


async def never() -> bool:
    return False


async def wait_for_line(process: Process, line: str) -> None:
    async def check() -> bool:
        return line in process.log_file.read_text()

    await process.wait_until(check, timeout_s=5)


def is_alive(pid: int | None) -> bool:
    try:
        # A dead process that its parent has not reaped yet is still listed, as Z.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def holds_soon(check: Callable[[], bool]) -> bool:
    limit = time.monotonic() + 5
    while not check() and time.monotonic() < limit:
        time.sleep(0.01)
    return check()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
def test_dies_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    assert holds_soon(lambda: not is_alive(child))


async def test_cannot_start_outside_the_main_thread(tmp_path: Path) -> None:
    process = Process("child", ["true"], log_file=tmp_path / "log")
    with pytest.raises(ProcessError, match="main thread"):
        await asyncio.to_thread(asyncio.run, process.start())


async def test_early_end_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    process = shell("echo address already in use; exit 3", tmp_path / "log")
    await process.start()
    with pytest.raises(ProcessError, match=r"(?s)exit code 3.*address already in use"):
        await process.wait_until(never, timeout_s=5)


async def test_late_start_is_reported(tmp_path: Path) -> None:
    process = shell("sleep 600", tmp_path / "log")
    await process.start()
    with pytest.raises(ProcessError, match=r"not ready within 0.05 s"):
        await process.wait_until(never, timeout_s=0.05)
    await process.kill()


async def test_missing_program_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="cannot be started"):
        await Process("child", [tmp_path / "nothing"], log_file=tmp_path / "log").start()


async def test_can_be_started_again_after_its_end(tmp_path: Path) -> None:
    process = shell("echo up; sleep 600", tmp_path / "log")
    await process.start()
    await wait_for_line(process, "up\n")
    first = process.pid
    await process.stop()
    assert not process.running
    await process.start()
    await wait_for_line(process, "up\nup\n")
    assert process.pid != first
    await process.kill()


async def test_stop_also_ends_processes_that_ignore_sigterm_and_their_children(tmp_path: Path) -> None:
    process = shell("trap '' TERM; sleep 600 & echo child $!; wait; wait", tmp_path / "log")
    await process.start()
    await wait_for_line(process, "child")
    grandchild = int(process.log_file.read_text().split()[1])
    await process.stop(grace_s=0.05)
    assert not process.running
    assert holds_soon(lambda: not is_alive(grandchild))


async def test_stop_ends_children_that_outlive_their_parent(tmp_path: Path) -> None:
    process = shell("(trap '' TERM; echo child; while :; do sleep 600; done) & echo pid $!; wait", tmp_path / "log")
    await process.start()
    await wait_for_line(process, "child")
    await wait_for_line(process, "pid")
    grandchild = int(process.log_file.read_text().split("pid ")[1].split()[0])
    await process.stop()
    assert holds_soon(lambda: not is_alive(grandchild))
