"""Whatever a server sends is text, or an error that can be told; nothing else comes of it."""

import json
import unicodedata
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from perllm.completions.answer import Answer
from perllm.completions.completion import Reading, find_words, read_failure
from perllm.completions.errors import CompletionError

UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, surrogates, and what ends a line or a paragraph."""

KEYS = "choices delta message content text usage completion_tokens finish_reason error type detail code reasoning"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["error", "stop", "text", "\ud83d", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4),
    max_leaves=12,
)
CHUNKS = st.one_of(
    VALUES,
    st.fixed_dictionaries({"choices": st.lists(VALUES, max_size=2), "usage": VALUES}),
    st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"delta": VALUES}), min_size=1, max_size=1)}),
)


@given(st.lists(CHUNKS, max_size=5))
def test_any_json_is_text_or_an_error(values: list[object]) -> None:
    answer = Answer()
    reading = Reading(answer, lambda: 1.0)
    with suppress(CompletionError):
        for value in values:
            reading.take_part(json.dumps(value).encode())
        reading.end()
    json.dumps(answer.to_object(0), ensure_ascii=False, allow_nan=False).encode()
    assert answer.output_tokens is not None or not answer.is_streamed
    assert (answer.output_tokens or 0) >= 0


@given(st.binary(max_size=50) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_refusal_has_words_of_one_line(content: bytes) -> None:
    for words in (find_words(content), str(read_failure(content))):
        assert not any(unicodedata.category(character) in UNSEEN for character in words)
