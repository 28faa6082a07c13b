"""Many tasks at once: on a fleet of which nothing is known but the tasks in flight, and on a known one."""

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


async def test_a_burst_on_a_known_fleet_is_in_time_at_no_more_energy_than_the_one_before_it(stage: Stage) -> None:
    bursts = [
        await stage.wait_all_settled(await stage.create_many(prefix, BURST), timeout_s=90)
        for prefix in ("first", "second")
    ]
    first_j, second_j = (_energy_j(stage, prefix) for prefix in ("first", "second"))
    nodes = Counter(line["node"] for line in stage.truth() if line["task"].startswith("second"))
    print(f"\nburst on a known fleet: {nodes.most_common(4)}; {second_j:.0f} J instead of {first_j:.0f} J")
    assert all(task["status"]["deadlineMet"] for burst in bursts for task in burst.values())
    assert second_j < 1.1 * first_j


def _energy_j(stage: Stage, prefix: str) -> float:
    return sum(line["energy_j"] for line in stage.truth() if line["task"].startswith(prefix))
