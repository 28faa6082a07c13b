"""Each test serves lines as the dispatch loop does: `serve` examines what is due, and puts it into lines."""

from collections.abc import Callable

from perllm.scheduling.backlog import Line
from perllm.scheduling.lines import MAX_REVIEWED, REVIEW_INTERVAL_S, WaitingLines
from perllm.scheduling.shares import Shares

ANY = "any"


def serve(lines: WaitingLines[str], line_of: Callable[[str], Line | None], now_s: float = 0.0) -> list[str]:
    """Return the tasks that were examined; those for which `line_of` returns None leave."""
    seen = []
    for key in lines.due(now_s):
        seen.append(key)
        line = line_of(key)
        if line is None:
            lines.remove(key)
        else:
            lines.wait(key, line)
    return seen


def waiting(line: Line, *keys: str) -> WaitingLines[str]:
    """Return lines in which all tasks wait, the first the most urgent, long before the next review."""
    lines: WaitingLines[str] = WaitingLines()
    for rank, key in enumerate(keys):
        lines.add(key, (rank,))
    serve(lines, lambda _: line)
    return lines


def test_new_tasks_come_by_rank_and_then_by_arrival() -> None:
    lines: WaitingLines[str] = WaitingLines()
    for key, rank in (("late", 9), ("first", 5), ("second", 5), ("hasty", 1)):
        lines.add(key, (rank,))
    assert serve(lines, lambda _: None) == ["hasty", "first", "second", "late"]
    assert len(lines) == 0


def test_waiting_tasks_are_examined_when_their_node_has_room_until_one_remains() -> None:
    lines = waiting(3, "a", "b", "c")
    lines.call(4)
    assert serve(lines, lambda _: 3) == []
    lines.call(3)
    assert serve(lines, lambda key: 3 if key == "b" else None) == ["a", "b"]
    assert [key in lines for key in "abc"] == [False, True, True]


def test_once_a_task_changes_its_line_the_next_one_is_examined() -> None:
    lines = waiting(3, "a", "b")
    lines.call(3)
    assert serve(lines, lambda key: 4 if key == "a" else 3) == ["a", "b"]
    lines.call(4)
    assert serve(lines, lambda _: None) == ["a"]


def test_a_task_that_waits_for_any_node_is_called_by_every_node() -> None:
    lines = waiting(ANY, "a")
    lines.call(7)
    assert serve(lines, lambda _: None) == ["a"]


def test_the_more_urgent_one_in_a_called_line_comes_before_a_new_one() -> None:
    lines = waiting(3, "waits")
    lines.call(3)
    lines.add("new", (5,))
    lines.add("hasty", (-1,))
    assert serve(lines, lambda _: None) == ["hasty", "waits", "new"]


def test_called_lines_take_turns_by_the_urgency_of_their_heads() -> None:
    lines: WaitingLines[str] = WaitingLines()
    for rank, key in enumerate("abcdef"):
        lines.add(key, (rank,))
    serve(lines, lambda key: "abcdef".index(key) % 3)
    for line in (2, 1, 0):
        lines.call(line)
    lines.add("a", (9,))  # the head of its line becomes less urgent after the call
    assert serve(lines, lambda _: None) == ["b", "c", "d", "e", "f", "a"]


def test_all_tasks_can_be_examined_again_in_their_order() -> None:
    lines = waiting(3, "a", "b", "c")
    lines.call(3)
    lines.requeue_all()
    lines.requeue_all()
    assert serve(lines, lambda _: 4) == ["a", "b", "c"]
    lines.call(4)
    assert serve(lines, lambda key: None if key == "a" else 4) == ["a", "b"]


def test_a_round_that_was_cut_short_continues_where_it_was() -> None:
    lines = waiting(3, "a", "b")
    lines.call(3)
    lines.add("new", (9,))
    for key in lines.due(0.0):
        lines.remove(key)
        break
    assert serve(lines, lambda _: None) == ["b", "new"]


def test_the_others_are_reviewed_in_rotation_as_time_passes() -> None:
    keys = [f"t{number}" for number in range(MAX_REVIEWED + 2)]
    lines = waiting(ANY, *keys)
    assert serve(lines, lambda _: ANY, REVIEW_INTERVAL_S / 2) == []
    assert serve(lines, lambda _: ANY, REVIEW_INTERVAL_S) == keys[:MAX_REVIEWED]
    assert serve(lines, lambda _: ANY, 2 * REVIEW_INTERVAL_S) == (keys[MAX_REVIEWED:] + keys)[:MAX_REVIEWED]


def test_a_task_can_be_requeued_and_keeps_its_rank() -> None:
    lines = waiting(ANY, "a", "b")
    lines.requeue("b")
    lines.requeue("unknown")
    assert serve(lines, lambda _: ANY) == ["b"]
    lines.requeue_all()
    assert serve(lines, lambda _: ANY) == ["a", "b"]


def test_a_task_that_is_added_again_has_only_its_new_rank() -> None:
    lines = waiting(3, "a", "b")
    lines.add("a", (9,))
    lines.call(3)
    assert serve(lines, lambda _: None) == ["b", "a"]


def test_the_time_of_the_next_review_is_known() -> None:
    lines = waiting(3, "a")
    assert lines.next_s(0.1) == REVIEW_INTERVAL_S
    lines.remove("a")
    serve(lines, lambda _: None)
    assert lines.next_s(0.1) == float("inf")


def two_namespaces() -> WaitingLines[str]:
    """Return lines in which a task of namespace poor waits for any node; namespace rich has been given much."""
    shares = Shares()
    shares.charge("poor", 1.0)
    for _ in range(10):
        shares.charge("rich", 10.0)
    lines: WaitingLines[str] = WaitingLines(shares)
    lines.add("waits", (0,), namespace="poor")
    serve(lines, lambda _: ANY)
    lines.add("new", (0,), namespace="rich")
    return lines


def start(lines: WaitingLines[str], may_start: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Start the tasks that are due on node 3 unless they yield; return the tasks that were examined."""
    seen = []
    for key in lines.due(0.0, may_start):
        seen.append(key)
        if not lines.yield_to_others(key, 3):
            lines.remove(key, work_s=1.0)
    return seen


def test_a_task_that_could_start_yields_to_tasks_with_a_better_claim() -> None:
    assert start(two_namespaces()) == ["new", "waits", "new"]


def test_no_task_yields_to_a_namespace_that_may_not_start_or_was_examined_without_success() -> None:
    assert start(two_namespaces(), lambda namespace: namespace == "rich") == ["new", "new"]
    lines, seen = two_namespaces(), []
    for key in lines.due(0.0):
        seen.append(key)
        if key == "waits":
            lines.wait(key, ANY)
        elif not lines.yield_to_others(key, 3):
            lines.remove(key)
    assert seen == ["new", "waits", "new"]


def test_no_task_yields_within_its_namespace() -> None:
    lines = waiting(ANY, "waits")
    lines.add("new", (9,))
    assert start(lines) == ["new"]


def test_namespaces_are_served_in_turn_and_each_in_its_own_order() -> None:
    lines: WaitingLines[str] = WaitingLines()
    for number in range(3):
        lines.add(f"a{number}", (number,), namespace="a")
        lines.add(f"b{number}", (-number,), namespace="b")
    assert start(lines) == ["a0", "b2", "a1", "b1", "b0", "a2"]


def test_a_node_with_room_calls_the_lines_of_all_namespaces_the_one_with_the_best_claim_first() -> None:
    lines = two_namespaces()
    serve(lines, lambda _: 3)
    lines.call(3)
    assert start(lines) == ["waits", "new"]


def test_examinations_without_success_are_shared_between_namespaces() -> None:
    lines: WaitingLines[str] = WaitingLines()
    for number in range(100):
        lines.add(f"a{number}", (number,), namespace="a")
    lines.add("b", (0,), namespace="b")
    assert serve(lines, lambda _: ANY).index("b") <= 1


def test_a_task_that_yields_to_more_others_than_one_part_of_a_round_examines_has_its_turn() -> None:
    shares, starting = Shares(), "starting"
    lines: WaitingLines[str] = WaitingLines(shares)
    shares.charge("busy", 25.0)
    for number in range(5):
        lines.add(f"stuck-{number}", (0,), namespace=f"other-{number}")
    serve(lines, lambda _: ANY)
    lines.add(starting, (0,), namespace="busy")
    for _ in range(10):
        for examined, key in enumerate(lines.due(0.0), start=1):
            if key != starting:
                lines.wait(key, ANY)
            elif not lines.yield_to_others(key, row=3):
                return
            if examined == 3:
                break
    raise AssertionError("it still yields")
