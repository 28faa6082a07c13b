"""vllm-router, a peer: spreads requests over model servers. It is made for throughput and reuse of caches."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.probe import answers
from perllm_lab.kubernetes.process import Process
from programs.environment import install_environment

POLICIES = ("round_robin", "power_of_two", "cache_aware")
LOCK = Path(__file__).with_name("router.lock")
START_TIMEOUT_S = 60.0
# It must neither refuse nor queue what its servers accept.
NO_LIMITS = ("--max-concurrent-requests", "100000", "--queue-size", "100000", "--request-timeout-secs", "3600")


async def install_router(cache_folder: Path) -> Path:
    """Return the program, installed into the cache folder on first use.

    Raises:
        ToolchainError: it could not be installed.
    """
    key = hashlib.sha256(f"{sys.version}\0{LOCK.read_text()}".encode()).hexdigest()[:16]
    folder = cache_folder / f"vllm-router-{key}"
    await install_environment(folder, [LOCK])
    return folder / "bin" / "vllm-router"


@asynccontextmanager
async def open_router(program: Path, policy: str, servers: Sequence[str], log_file: Path) -> AsyncIterator[str]:
    """Run the router in front of model servers, and yield its base URL."""
    port, metrics_port = find_free_ports(2)
    argv = [
        *(str(program), "--policy", policy, "--port", str(port), "--prometheus-port", str(metrics_port)),
        *NO_LIMITS,
        *("--worker-urls", *servers),
    ]
    process = Process("vllm-router", argv, log_file=log_file)
    url = f"http://{LOOPBACK}:{port}"
    try:
        await process.start()
        await process.wait_until(lambda: answers(f"{url}/health"), timeout_s=START_TIMEOUT_S)
        await asyncio.sleep(1.0)
        yield url
    finally:
        await process.stop()
