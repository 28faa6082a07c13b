"""A prompt in environment variables, as the operator hands it to a runner pod.

It is a JSON object as in a file that ends in .jsonl, split over PERLLM_PROMPT_0, PERLLM_PROMPT_1, ..., since Linux
takes at most 128 KiB per variable.
"""

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

import orjson

from perllm.api.prompt import ChatMessage, Generation

PREFIX = "PERLLM_PROMPT_"

PART_LENGTH = 32_000
"""Characters per variable; each takes up to four bytes."""


def write_variables(conversation: Sequence[ChatMessage], generation: Generation) -> dict[str, str]:
    """Return the variables that hold a conversation, and how its answer is generated."""
    messages = [message.to_object() for message in conversation]
    text = orjson.dumps({"messages": messages, **generation.to_body()}).decode()
    # kubelet replaces $(NAME) in values.
    text = text.replace("$", "\\u0024")
    parts = range(0, len(text), PART_LENGTH)
    return {f"{PREFIX}{number}": text[begin : begin + PART_LENGTH] for number, begin in enumerate(parts)}


def read_variables(environment: Mapping[str, str]) -> str:
    """Return the JSON object that the variables hold; empty if there are none."""
    names = takewhile(environment.__contains__, (f"{PREFIX}{number}" for number in count()))
    return "".join(environment[name] for name in names)
