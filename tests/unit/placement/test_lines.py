"""Each test serves like the dispatcher does: `serve` looks at what is due, and says where everyone stays."""

from collections.abc import Callable

from perllm.placement.lines import MAX_LOOKED_AT, PAUSE_S, Line, WaitingLines

ANY = "any"


def serve(lines: WaitingLines[str], stays: Callable[[str], Line | None], now_s: float = 0.0) -> list[str]:
    """Return who was looked at; those without a line to stay in leave."""
    seen = []
    for key in lines.due(now_s):
        seen.append(key)
        line = stays(key)
        if line is None:
            lines.remove(key)
        else:
            lines.wait(key, line)
    return seen


def waiting(line: Line, *keys: str) -> WaitingLines[str]:
    """Return lines in which everyone waits, the first the most urgent, long before the next patrol."""
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


def test_whoever_waits_is_looked_at_when_its_node_has_room_until_one_stays() -> None:
    lines = waiting(3, "a", "b", "c")
    lines.call(4)
    assert serve(lines, lambda _: 3) == []
    lines.call(3)
    assert serve(lines, lambda key: 3 if key == "b" else None) == ["a", "b"]
    assert [key in lines for key in "abc"] == [False, True, True]


def test_one_that_changes_its_line_lets_the_next_one_be_looked_at() -> None:
    lines = waiting(3, "a", "b")
    lines.call(3)
    assert serve(lines, lambda key: 4 if key == "a" else 3) == ["a", "b"]
    lines.call(4)
    assert serve(lines, lambda _: None) == ["a"]


def test_who_waits_for_any_node_is_called_by_every_node() -> None:
    lines = waiting(ANY, "a")
    lines.call(7)
    assert serve(lines, lambda _: None) == ["a"]


def test_the_more_urgent_one_in_a_called_line_comes_before_a_new_one() -> None:
    lines = waiting(3, "waits")
    lines.call(3)
    lines.add("new", (5,))
    lines.add("hasty", (-1,))
    assert serve(lines, lambda _: None) == ["hasty", "waits", "new"]


def test_a_round_that_was_broken_off_goes_on_where_it_was() -> None:
    lines = waiting(3, "a", "b")
    lines.call(3)
    lines.add("new", (9,))
    for key in lines.due(0.0):
        lines.remove(key)
        break
    assert serve(lines, lambda _: None) == ["b", "new"]


def test_the_others_are_looked_at_in_turn_as_time_passes() -> None:
    keys = [f"t{number}" for number in range(MAX_LOOKED_AT + 2)]
    lines = waiting(ANY, *keys)
    assert serve(lines, lambda _: ANY, PAUSE_S / 2) == []
    assert serve(lines, lambda _: ANY, PAUSE_S) == keys[:MAX_LOOKED_AT]
    assert serve(lines, lambda _: ANY, 2 * PAUSE_S) == (keys[MAX_LOOKED_AT:] + keys)[:MAX_LOOKED_AT]


def test_one_can_be_looked_at_again_and_keeps_its_rank() -> None:
    lines = waiting(ANY, "a", "b")
    lines.again("b")
    lines.again("unknown")
    assert serve(lines, lambda _: ANY) == ["b"]
    lines.all_again()
    assert serve(lines, lambda _: ANY) == ["a", "b"]


def test_one_that_was_added_again_has_its_new_rank_only() -> None:
    lines = waiting(3, "a", "b")
    lines.add("a", (9,))
    lines.call(3)
    assert serve(lines, lambda _: None) == ["b", "a"]


def test_it_says_when_it_wants_to_be_asked() -> None:
    lines = waiting(3, "a")
    assert lines.next_s(0.1) == PAUSE_S
    lines.call(3)
    assert lines.next_s(0.1) == 0.1
    lines.remove("a")
    serve(lines, lambda _: None)
    assert lines.next_s(0.1) == float("inf")
