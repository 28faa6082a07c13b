"""Two bursts of tasks: on a fleet of which only the tasks in flight are known, and on one that the first has taught."""

from collections import Counter

from e2e.stage import Stage

BURST = 60
# By published figures the two H100 are by far the best and full batches take the least energy, but one alone is slower.
MAX_SHARE = 2 / 3
BEST_GPU = "h100"
MIN_BEST_SHARE = 0.9


async def test_a_burst_spreads_over_an_unknown_fleet_and_the_next_goes_to_its_best_nodes(stage: Stage) -> None:
    assert await stage.learned() == 0
    tasks = await stage.wait_all_settled(await stage.create_many("first", BURST), timeout_s=90)
    tasks |= await stage.wait_all_settled(await stage.create_many("second", BURST), timeout_s=90)
    first, second = (_count_by_node(stage, prefix) for prefix in ("first", "second"))
    print(f"\nburst on an unknown fleet: {first.most_common(4)}; on a known one: {second.most_common(4)}")
    assert first.total() == second.total() == BURST
    assert max(first.values()) <= MAX_SHARE * BURST
    assert sum(count for node, count in second.items() if node.startswith(BEST_GPU)) >= MIN_BEST_SHARE * BURST
    assert all(task["status"]["deadlineMet"] for task in tasks.values())


def _count_by_node(stage: Stage, prefix: str) -> Counter[str]:
    return Counter(line["node"] for line in stage.truth() if line["task"].startswith(prefix))
