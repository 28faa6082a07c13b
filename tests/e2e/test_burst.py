"""Many tasks at once on a fleet of which nothing is known: only the tasks in flight distinguish the nodes."""

from collections import Counter

import pytest

from e2e.stage import Stage

pytestmark = pytest.mark.alone

BURST = 60
# By published figures the two H100 are by far the best and full batches take the least energy, but one alone is slower.
MAX_SHARE = 2 / 3


async def test_a_burst_spreads_over_an_unknown_fleet(stage: Stage) -> None:
    assert await stage.learned() == 0
    tasks = await stage.wait_all_final(await stage.create_many("burst", BURST), timeout_s=90)
    nodes = Counter(line["node"] for line in stage.truth())
    print(f"\nburst on an unknown fleet: {nodes.most_common(4)}")
    assert sum(nodes.values()) == BURST
    assert max(nodes.values()) <= MAX_SHARE * BURST
    assert all(task["status"]["deadlineMet"] for task in tasks.values())
