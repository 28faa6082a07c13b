"""What a model server repeats of a prompt."""

import json

import pytest

from perllm.completions.quotes import hide_quotes

PROMPT = 'Why did "Dr. Müller"\nfire 12 people, and 王小明 from the office in 北京?'


def ask(content: object) -> list[dict[str, object]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]


@pytest.mark.parametrize(
    "quoted",
    [
        PROMPT,
        repr(PROMPT),
        json.dumps(PROMPT),
        json.dumps(PROMPT, ensure_ascii=False),
        json.dumps(json.dumps(PROMPT)),
        PROMPT.replace("\n", " ")[:30],
    ],
)
@pytest.mark.parametrize("content", [PROMPT, [{"type": "text", "text": PROMPT}]])
def test_a_quotation_is_left_out_however_it_is_written(quoted: str, content: object) -> None:
    found = hide_quotes(f"'msg': 'Field required', 'input': {quoted}, 'type': 'missing'", ask(content))
    assert found.startswith("'msg': 'Field required', 'input': ")
    assert found.endswith(", 'type': 'missing'")
    assert not any(word in found for word in ("Why", "ller", "fire", "people", "office", "王", "738b"))


def test_words_that_quote_nothing_remain_as_they_are() -> None:
    words = r"maximum context length is 4096 tokens, the cause: no \u00e9, in C:\new"
    assert hide_quotes(words, ask(PROMPT)) == words
    assert hide_quotes("the server reported an error", ask("error")) == "the server reported an error"


def test_a_short_prompt_is_left_out_as_a_whole() -> None:
    assert hide_quotes("cannot answer 'Who is Ann?'", ask("Who is Ann?")) == "cannot answer '…?'"
