"""Learned state that somebody has edited by hand: one value of it is another one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from strategies.values import JSON, LONG_TEXTS, NUMBERS, Object, Oddities, place

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One value at one place; the place is counted among all there are."""

    place: int
    value: Any

    def apply(self, status: Object) -> tuple[Path, Object]:
        """Return the changed place and the changed status."""
        paths = list(_paths(status))
        path = paths[self.place % len(paths)]
        return path, place(status, path, self.value)


def odd_profiles() -> Oddities:
    """Return how a profile's status may be changed by hand."""
    places = st.integers(0, 10_000)
    return {
        "a number": st.builds(Mutation, places, NUMBERS),
        "another type": st.builds(Mutation, places, JSON),
        "a list of one": st.builds(Mutation, places, st.sampled_from([[0], [-1], [1e308], [None], [[]], ["x"]])),
        "nothing": st.builds(Mutation, places, st.sampled_from([None, 0, "", [], {}])),
        "a long text": st.builds(Mutation, places, LONG_TEXTS),
    }


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from _paths(one, (*path, key))
