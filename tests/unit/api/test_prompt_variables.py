"""A prompt in environment variables: what a runner pod reads is what the task says."""

import os
import subprocess
import sys

import orjson

from perllm.api.prompt import MAX_PROMPT_LENGTH, ChatMessage, ChatRole, Generation
from perllm.api.prompt_variables import read_variables, write_variables

READ = "import os, sys; from perllm.api.prompt_variables import read_variables; print(len(read_variables(os.environ)))"


def ask(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role=ChatRole.USER, content=text),)


def test_a_prompt_is_read_as_it_was_written() -> None:
    text = "costs $5 in $(HOME), or $$(HOME)\\$\n\x00ü€😀" * 2500
    variables = write_variables(ask(text), Generation(max_tokens=5, top_p=0.5, seed=7, stop=("a",)))
    assert not any("$" in part for part in variables.values())
    assert orjson.loads(read_variables({"HOME": "/", **variables})) == {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 5,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["a"],
    }


def test_a_program_can_be_started_with_the_longest_prompt() -> None:
    variables = write_variables(ask("\x01" * MAX_PROMPT_LENGTH), Generation())
    environment = {**os.environ, **variables}
    output = subprocess.run([sys.executable, "-c", READ], env=environment, check=True, capture_output=True, text=True)
    assert int(output.stdout) > 6 * MAX_PROMPT_LENGTH
