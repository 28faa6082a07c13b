from hypothesis import given
from hypothesis import strategies as st

from perllm.scheduling.places import Places


def fill(places: Places, namespace: str, now_s: float = 0.0) -> int:
    """Have a namespace take all places that it may; return how many."""
    count = 0
    while places.may_take(namespace, now_s):
        places.take(f"{namespace}/{now_s}/{count}", namespace, now_s)
        count += 1
    return count


def test_a_single_namespace_gets_a_quarter() -> None:
    assert fill(Places(128), "a") == 32


@given(total=st.integers(32, 200), hogs=st.integers(1, 9))
def test_a_place_is_left_after_nine_have_taken_all_they_can(total: int, hogs: int) -> None:
    places = Places(total)
    for number in range(hogs):
        fill(places, f"hog-{number}")
    assert places.may_take("newcomer", 0.0)


def test_no_more_places_are_taken_than_there_are() -> None:
    places = Places(32)
    assert sum(fill(places, f"n{number}") for number in range(100)) == 32


def test_a_place_that_was_returned_is_free() -> None:
    places = Places(4)
    places.take("a/1", "a", 0.0)
    assert not places.may_take("a", 0.0)
    places.give_back("a/1")
    places.give_back("unknown")
    assert places.may_take("a", 0.0)


def test_a_place_that_is_held_for_too_long_counts_as_free() -> None:
    places = Places(8, patience_s=10.0)
    assert [fill(places, "a", now_s) for now_s in (0.0, 9.0, 10.0)] == [2, 0, 2]
