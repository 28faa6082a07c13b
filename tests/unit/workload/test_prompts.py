import dataclasses

import pytest

from perllm.api.prompt import MAX_PROMPT_LENGTH
from perllm_lab.workload.prompts import PromptMark, read_mark, write_prompt
from perllm_lab.workload.requests import Request

REQUEST = Request("task-1", "chat", 0.0, 1000, 200, 2_000_000, 25.0)


def test_a_prompt_is_as_long_as_its_tokens_and_ends_in_its_true_size():
    prompt = write_prompt(REQUEST)
    assert len(prompt) == 4 * 1000
    assert read_mark(prompt) == PromptMark("task-1", prompt_tokens=1000, output_tokens=200, input_bytes=2_000_000)


@pytest.mark.parametrize("tokens", [1, 1_000_000])
def test_a_prompt_of_any_size_fits_into_a_task_and_keeps_its_true_size(tokens):
    prompt = write_prompt(dataclasses.replace(REQUEST, prompt_tokens=tokens))
    assert len(prompt) <= MAX_PROMPT_LENGTH / 10
    assert read_mark(prompt).prompt_tokens == tokens


def test_prompts_of_different_requests_have_no_beginning_in_common():
    prompts = [write_prompt(dataclasses.replace(REQUEST, name=name)) for name in ("1-task", "2-task")]
    assert prompts[0][0] != prompts[1][0]


@pytest.mark.parametrize(
    "prompt", ["hello", "", "[[lab task=a prompt=x output=1 bytes=1]]", write_prompt(REQUEST) + " and more"]
)
def test_other_prompts_have_no_mark(prompt):
    assert read_mark(prompt) is None
