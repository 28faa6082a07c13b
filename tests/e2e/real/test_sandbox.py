"""Everything that a sandbox creates ends with its process, even when that is killed."""

import asyncio
import os
import sys
from pathlib import Path

from e2e.stage import wait_until
from perllm_lab.kubernetes.process import spawn
from realnode.sandbox import remove_leftovers

SCRIPT = """
import asyncio, sys
from pathlib import Path
from realnode.sandbox import Sandbox
from perllm_lab.kubernetes.process import spawn

async def main():
    async with Sandbox(Path(sys.argv[1])) as sandbox:
        await sandbox.run("mkdir", "/run/mounted")
        await sandbox.run("mount", "-t", "tmpfs", "tmpfs", "/run/mounted")
        await sandbox.run("sh", "-c", "setsid sleep 4711 > /dev/null 2>&1 &")
        print("up", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_sandbox_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    child = await spawn(argv, output=asyncio.subprocess.PIPE, environment=environment)
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"up\n"
        await wait_until(lambda: _exists(child.pid), timeout_s=5)
    finally:
        child.kill()
        await child.wait()
    await wait_until(_is_quiet, timeout_s=5)
    # What lies outside of namespaces is removed by the next sandbox.
    await remove_leftovers()
    assert (_has_link(child.pid), _find_cgroups(child.pid)) == (False, [])


async def _exists(pid: int) -> bool:
    return _has_link(pid) and len(_find_sleepers()) == 1


async def _is_quiet() -> bool:
    return not _find_sleepers()


def _has_link(pid: int) -> bool:
    return Path(f"/sys/class/net/perllm-{pid}").exists()


def _find_cgroups(pid: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/perllm-lab-{pid}"))


def _find_sleepers() -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_bytes() == b"sleep\x004711\x00":
                found.append(process)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
