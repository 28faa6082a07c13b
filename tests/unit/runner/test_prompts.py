import io
import json
from pathlib import Path

import pytest

from perllm.runner.prompts import Prompt, PromptError, collect_prompts


def user(text: str) -> Prompt:
    return Prompt(messages=({"role": "user", "content": text},))


def test_prompts_come_from_arguments_files_and_standard_input_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("second\n\n  third  \n")
    (tmp_path / "objects.jsonl").write_text(
        '{"prompt": "fourth"}\n{"messages": [{"role": "user", "content": "fifth"}]}\n'
    )

    prompts = collect_prompts(
        ["first\nof two lines"], [tmp_path / "lines.txt", tmp_path / "objects.jsonl"], io.BytesIO(b"sixth\n"), None
    )

    texts = ["first\nof two lines", "second", "third", "fourth", "fifth", "sixth"]
    assert prompts == tuple(user(text) for text in texts)


def test_system_message_goes_before_prompts_but_not_before_messages(tmp_path: Path) -> None:
    file = tmp_path / "objects.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "b"}]}')

    assert collect_prompts(["a"], [file], None, "Be brief.") == (
        Prompt(messages=({"role": "system", "content": "Be brief."}, *user("a").messages)),
        user("b"),
    )


def test_a_line_of_a_plain_file_is_a_prompt_even_if_it_looks_like_json(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text('{"prompt": "x"}')

    assert collect_prompts([], [tmp_path / "lines.txt"], None, None) == (user('{"prompt": "x"}'),)


def test_a_line_may_say_how_its_prompt_is_to_be_answered(tmp_path: Path) -> None:
    own = {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "seed": 3, "stop": "."}
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": 7, "prompt": "x", "model": "own", **own}))

    (prompt,) = collect_prompts([], [tmp_path / "x.jsonl"], None, None)

    assert (prompt.id, prompt.model, prompt.parameters) == ("7", "own", {**own, "stop": ["."]})


def make_request(**body: object) -> dict[str, object]:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], **body}
    return {"custom_id": "q-1", "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_line_may_be_a_request_of_openais_batch_api(tmp_path: Path, name: str, limit: str) -> None:
    request = make_request(**{limit: 5})
    (tmp_path / name).write_text(json.dumps([request] if name == "a.json" else request))

    (prompt,) = collect_prompts([], [tmp_path / name], None, None)

    assert prompt == Prompt(messages=user("a").messages, model="m", max_tokens=5, id="q-1")


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (make_request(tools=[]), "fields that would be ignored: tools"),
        (make_request(max_tokens=5, max_completion_tokens=6), "fields that would be ignored: max_completion_tokens"),
        ({**make_request(), "url": "/v1/embeddings"}, "url: Input should be '/v1/chat/completions'"),
        ({**make_request(), "priority": 1}, "priority: Extra inputs are not permitted"),
        ({**make_request(), "body": []}, "body: Input should be a valid dictionary"),
    ],
    ids=["field of the body", "another limit", "url", "field", "body"],
)
def test_a_request_that_no_task_can_make_is_refused(tmp_path: Path, request_: dict[str, object], problem: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(request_))

    with pytest.raises(PromptError, match=rf"x\.jsonl, line 1, .*{problem}"):
        collect_prompts([], [tmp_path / "x.jsonl"], None, None)


def test_a_file_may_hold_an_array_or_lines_and_the_case_of_its_ending_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "a"},\n {"messages": [{"role": "user", "content": "b"}]}]')
    (tmp_path / "b.JSONL").write_text('{"prompt": "c"}')
    (tmp_path / "c.ndjson").write_text('{"prompt": "d"}')

    files = [tmp_path / "a.json", tmp_path / "b.JSONL", tmp_path / "c.ndjson"]

    assert collect_prompts([], files, None, None) == (user("a"), user("b"), user("c"), user("d"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "x"}', r"must be an array of objects; a file with one object per line ends in \.jsonl"),
        ('{"prompt": "x"}\n{"prompt": "y"}', r"is not valid JSON: .*; one object per line takes \.jsonl"),
        ('[{"prompt": "x"}, {"prompt": 5}]', 'object 2, has a "prompt" that is not a string'),
    ],
)
def test_a_wrong_array_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)

    with pytest.raises(PromptError, match=rf"x\.json,? {message}"):
        collect_prompts([], [tmp_path / "x.json"], None, None)


def test_what_would_be_ignored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "x", "top_k": 5, "n": 2}')

    with pytest.raises(PromptError, match="fields that would be ignored: n, top_k; known are prompt, messages, model"):
        collect_prompts([], [tmp_path / "x.jsonl"], None, None)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"promt": "x"}',
        '{"prompt": ""}',
        '{"prompt": null}',
        '{"messages": []}',
        '{"messages": ["x"]}',
        '{"prompt": "x", "messages": [{}]}',
        '{"prompt": "x", "max_tokens": "5"}',
        '{"prompt": "x", "temperature": -1}',
    ],
)
def test_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"prompt": "good"}}\n\n{line}\n')

    with pytest.raises(PromptError, match=r"x\.jsonl, line 3,"):
        collect_prompts([], [tmp_path / "x.jsonl"], None, None)


def test_only_newlines_end_a_line_and_a_byte_order_mark_is_none_of_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes('\ufeff{"prompt": "a\u2028b"}\r\n{"prompt": "c"}'.encode())

    assert collect_prompts([], [tmp_path / "x.jsonl"], None, None) == (user("a\u2028b"), user("c"))


def read_stdin(text: str) -> list[tuple[str | None, object]]:
    prompts = collect_prompts([], [], io.BytesIO(text.encode()), None)
    return [(prompt.id, prompt.messages[-1]["content"]) for prompt in prompts]


def test_standard_input_has_objects_if_its_first_line_is_one() -> None:
    request = '{"custom_id": "b", "body": {"messages": [{"role": "user", "content": "y"}]}}'

    assert read_stdin(f'\n{{"prompt": "x", "id": "a"}}\n{request}\n') == [("a", "x"), ("b", "y")]
    with pytest.raises(PromptError, match="standard input, line 2, is not valid JSON"):
        read_stdin('{"prompt": "x"}\nplain\n')


@pytest.mark.parametrize("line", ["{", "5", '["prompt"]', '{"broken": "JSON"}'])
def test_a_prompt_on_standard_input_may_look_like_json(line: str) -> None:
    assert read_stdin(f'{line}\n{{"prompt": "x"}}\n') == [(None, line), (None, '{"prompt": "x"}')]


@pytest.mark.parametrize(
    "text",
    ['[{"prompt": "x"}, {"prompt": "y"}]', '[\n  {"prompt": "x"}\n]\n', '{\n  "prompt": "x"\n}\n'],
    ids=["array", "array on several lines", "object on several lines"],
)
def test_json_whose_lines_are_no_prompts_is_refused_on_standard_input(text: str) -> None:
    with pytest.raises(PromptError, match=r"each object on one line, as jq -c '.\[\]' writes them"):
        read_stdin(text)


def test_other_encodings_are_refused() -> None:
    with pytest.raises(PromptError, match="standard input, line 2, is not valid UTF-8"):
        collect_prompts([], [], io.BytesIO("a\né".encode("latin-1")), None)


def test_too_many_prompts_are_refused_before_all_of_them_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perllm.runner.prompts.MAX_PROMPTS", 100)

    class Endless(io.RawIOBase):
        def __next__(self) -> bytes:
            return b"again\n"

    with pytest.raises(PromptError, match="too many prompts"):
        collect_prompts([], [], Endless(), None)  # type: ignore[arg-type]


def test_no_prompt_and_no_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="there is no prompt"):
        collect_prompts([" "], [], io.BytesIO(b"\n"), None)
    with pytest.raises(PromptError, match=r"missing\.txt cannot be read"):
        collect_prompts([], [tmp_path / "missing.txt"], None, None)
