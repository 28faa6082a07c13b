"""Two replicas, one of which is killed, on a machine that does nothing else."""

import time

from e2e.replicas import open_pair, repair
from e2e.stage import wait_until
from perllm_lab.lab import Lab

TAKEOVER_S = 14.0
"""Less than the lease of a kube-scheduler by default."""


async def test_the_standby_is_active_soon_after_the_active_replica_is_killed(lab: Lab) -> None:
    async with open_pair(lab) as replicas:
        active, standby = await repair(replicas)
        start_s = time.monotonic()
        await active.kill()
        await wait_until(standby.is_active, timeout_s=TAKEOVER_S)
        print(f"the standby is active {time.monotonic() - start_s:.1f} s after the kill")
