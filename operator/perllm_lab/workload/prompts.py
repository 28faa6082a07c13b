"""Prompts of the lab: each ends in a mark with the true size of its work, which only simulated model servers read."""

import re
from dataclasses import dataclass

from perllm_lab.workload.requests import BYTES_PER_TOKEN, Request

MAX_PROMPT_LENGTH = 8192
"""Characters that are written out of a longer prompt; its true size is in the mark and in the task."""

MAX_MARK_LENGTH = 400

_WORDS = "the node that has room for one more task runs it and then it is done "
_MARK = re.compile(r"\[\[lab task=(\S*) prompt=(\d{1,9}) output=(\d{1,9}) bytes=(\d{1,12})\]\]\s*$")


@dataclass(frozen=True, slots=True)
class PromptMark:
    """The true size of a request: the name it has in the ground truth, its tokens, and the bytes to be transferred."""

    task: str
    prompt_tokens: int
    output_tokens: int
    input_bytes: int


def write_prompt(request: Request) -> str:
    """Return the prompt of a request: words of about its length, and the mark.

    It starts with the name of the request, because routers take requests with the same beginning for one conversation.
    """
    mark = (
        f"[[lab task={request.name} prompt={request.prompt_tokens} output={request.output_tokens} "
        f"bytes={request.input_bytes}]]"
    )
    begin = f"{request.name}: "
    room = min(BYTES_PER_TOKEN * request.prompt_tokens, MAX_PROMPT_LENGTH) - len(begin) - len(mark)
    words = (_WORDS * (room // len(_WORDS) + 1))[: max(room, 0)]
    return f"{begin}{words}{mark}"


def read_mark(prompt: str) -> PromptMark | None:
    """Return the mark at the end of a prompt; None if there is none."""
    found = _MARK.search(prompt[-MAX_MARK_LENGTH:])
    if found is None:
        return None
    task, *sizes = found.groups()
    return PromptMark(task, *map(int, sizes))
