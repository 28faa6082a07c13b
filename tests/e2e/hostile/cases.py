"""Generated inputs, the same ones for the same seed."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from strategies.values import Oddities


@dataclass(frozen=True, slots=True)
class Case:
    """One input.

    Attributes:
        kind: what it is.
        oddity: what is wrong with it, in a few words.
        name: of its object.
        value: as its strategy made it.
    """

    kind: str
    oddity: str
    name: str
    value: Any


def draw_cases(kind: str, oddities: Oddities, count: int, number: int) -> list[Case]:
    """Return `count` cases that cover every oddity; `number` is their seed."""
    # Twice its share of each: some oddities have few forms.
    share = -(-2 * count // len(oddities))
    drawn = {oddity: _draw(strategy, share, number) for oddity, strategy in oddities.items()}
    return [
        Case(kind, oddity, f"{kind}-{position}", value)
        for position, (oddity, value) in enumerate(itertools.islice(_take_turns(drawn), count))
    ]


def _draw(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """Return distinct values of a strategy, at most `count`."""
    values: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values[:count]


def _take_turns(drawn: Mapping[str, list[Any]]) -> "itertools.chain[tuple[str, Any]]":
    columns = [[(oddity, value) for value in values] for oddity, values in drawn.items()]
    rows = itertools.zip_longest(*columns)
    return itertools.chain.from_iterable([one for one in row if one is not None] for row in rows)
