from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.controller.queue import TaskQueue


def filled(*entries: tuple[str, int, float]) -> TaskQueue:
    queue = TaskQueue()
    for key, priority, latest_start_s in entries:
        queue.put(key, priority, latest_start_s)
    return queue


def keys(queue: TaskQueue, limit: int) -> list[str]:
    return [entry.key for entry in queue.drain(limit)]


def test_higher_priority_comes_first_then_the_one_that_must_start_earlier() -> None:
    queue = filled(("late", 0, 50.0), ("early", 0, 10.0), ("important", 5, 99.0))
    assert keys(queue, 9) == ["important", "early", "late"]


def test_equals_keep_the_order_of_arrival() -> None:
    assert keys(filled(*[(f"t{number}", 0, 1.0) for number in range(9)]), 9) == [f"t{n}" for n in range(9)]


def test_draining_takes_no_more_than_asked() -> None:
    queue = filled(("a", 0, 1), ("b", 0, 2), ("c", 0, 3))
    assert keys(queue, 2) == ["a", "b"]
    assert (len(queue), "a" in queue, "c" in queue) == (1, False, True)
    assert keys(queue, 0) == []


def test_what_was_not_looked_at_stays() -> None:
    queue = filled(("a", 0, 1), ("b", 0, 2))
    assert next(queue.drain(2)).key == "a"
    assert keys(queue, 2) == ["b"]


def test_what_is_put_back_keeps_its_place_unless_it_was_put_again() -> None:
    queue = filled(("a", 0, 1), ("b", 0, 2))
    taken = next(queue.drain(1))
    queue.put_back(taken)
    assert keys(queue, 1) == ["a"]
    queue.put("a", 0, 3)
    queue.put_back(taken)
    assert keys(queue, 9) == ["b", "a"]


ACTION = st.tuples(st.sampled_from("abcdefg"), st.one_of(st.none(), st.tuples(st.integers(-2, 2), st.integers(0, 3))))


@settings(deadline=None)
@given(st.lists(ACTION))
def test_the_order_is_that_of_sorting_whatever_was_put_moved_and_removed(
    actions: list[tuple[str, tuple[int, int] | None]],
) -> None:
    queue, expected = TaskQueue(), {}
    for number, (key, urgency) in enumerate(actions):
        if urgency is None:
            queue.remove(key)
            expected.pop(key, None)
        else:
            queue.put(key, urgency[0], urgency[1])
            expected[key] = (-urgency[0], urgency[1], number)
    assert len(queue) == len(expected)
    assert keys(queue, 99) == sorted(expected, key=expected.__getitem__)
