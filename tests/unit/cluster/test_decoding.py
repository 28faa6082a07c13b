"""Objects of the API server are read however they are nested."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.cluster.decoding import MAX_DEPTH, UndecodableError, decode, prune

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nest(depth: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize("depth", [200, 1100, 9000])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('{"a":[', "]}")])
def test_what_is_nested_too_deeply_is_left_out_and_the_rest_is_there(depth: int, opening: str, closing: str) -> None:
    text = f'{{"metadata":{{"name":"t"}},"spec":{nest(depth, opening, closing)},"status":{{"phase":"Pending"}}}}'
    item = decode(text.encode())
    assert item["metadata"] == {"name": "t"}
    assert item["status"] == {"phase": "Pending"}
    assert json.loads(prune(text.encode()))["status"] == {"phase": "Pending"}


def test_brackets_in_texts_nest_nothing() -> None:
    item = {"a": "[{" * 1000, "b": '"\\' * 500, "c": [{"d": 1}] * 300}
    assert json.loads(prune(orjson.dumps(item))) == item


@settings(max_examples=30)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_ordinary_objects_are_read_as_they_are(item: dict[str, object]) -> None:
    text = orjson.dumps({"deep": json.loads(nest(1)), **item})
    assert decode(text) == orjson.loads(text)


def test_exactly_the_deepest_levels_are_kept() -> None:
    text = b"[" * 500 + b"]" * 500
    kept = json.loads(prune(text))
    depth = 0
    while isinstance(kept, list) and kept:
        kept, depth = kept[0], depth + 1
    assert depth == MAX_DEPTH
    assert isinstance(kept, str)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b"1", b"null", b'{"a":', b"\xff", b"[" * 5000])
def test_what_is_not_an_object_is_refused(content: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(content)
