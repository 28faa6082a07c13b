"""Values that nobody who writes a schema thinks of, and how to put them into an object."""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]
Oddities = Mapping[str, st.SearchStrategy[Any]]
"""What may be wrong with an object, in a few words, and objects that are wrong in that way."""

DEPTHS = (100, 260, 1100)

# What JSON can carry: everything but lone surrogates, which are no Unicode and tried by themselves.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ODD_TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "\n", "a\nb", "\x00", "\x1b[2J\x1b]0;title\x07", "\u202egnol", "\ufeff", "..", "%s", "{}"]
    ),
    TEXTS,
)
LONG_TEXTS = st.builds(
    lambda piece, count: (piece * count)[:count],
    st.sampled_from(["x", "please summarise ", "語", "\x1b"]),
    st.sampled_from([64, 300, 5_000, 40_000, 200_000]),
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1.5, 2**31, 2**53 + 1, 10**26, 1e308, -1e308, 5e-324]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, ODD_TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
NOT_A_MAP = st.one_of(SCALARS, st.lists(JSON, max_size=3))
NOT_A_TEXT = st.one_of(st.none(), st.booleans(), NUMBERS, st.lists(JSON, max_size=2), st.dictionaries(TEXTS, JSON))
ODD_TIMES = st.sampled_from(
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-07-20T20:17:40Z", "2262-04-12T00:00:00Z", "yesterday", ""]
)


def nest(depth: int, *, as_list: bool) -> Any:
    """Return a value inside `depth` lists or objects."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


NESTED = st.builds(nest, st.sampled_from(DEPTHS), as_list=st.booleans())


def place(item: Object, path: Sequence[str | int], value: Any) -> Object:
    """Return a copy of an object with the value at a path; objects on the way are made as needed."""
    changed = copy.deepcopy(item)
    holder: Any = reduce(_step, path[:-1], changed)
    holder[path[-1]] = value
    return changed


def _step(holder: Any, key: str | int) -> Any:
    if isinstance(key, str):
        holder.setdefault(key, {})
    return holder[key]


def encode(item: Any) -> bytes:
    """Return JSON as it is sent; lone surrogates stay escaped, as careless programs write them."""
    return json.dumps(item).encode()
