"""The ``LLMTaskAnswer``: what the status of a task cannot hold, a long answer or those to several prompts."""

from typing import Annotated

from pydantic import Field

from perllm.api.base import Resource, Text, Tokens
from perllm.api.prompt import MAX_PROMPTS

MAX_STORED_LENGTH = 200_000
"""Characters of all answers of one task. In JSON a character has at most six bytes, and etcd takes 1.5 MB an object."""


class PromptAnswer(Resource):
    """What became of one prompt."""

    index: int = Field(ge=0, description="Position of the prompt in the task, from 0.")
    text: Annotated[str, Field(max_length=MAX_STORED_LENGTH)] | None = Field(
        default=None, description="The answer; absent if there is none."
    )
    truncated: bool | None = Field(default=None, description="Whether the text was truncated to fit.")
    problem: Text | None = Field(default=None, description="Why there is no answer.")
    finish_reason: Text | None = Field(
        default=None, description="Why the model server ended the answer, for example stop or length."
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Number of prompt tokens, if reported.")
    output_tokens: Tokens | None = Field(default=None, description="Number of generated tokens.")


class TaskAnswer(Resource):
    """The answers of one attempt at a task. Created by the agent of the node, and never changed."""

    attempt: int = Field(ge=1, description="The attempt that answered.")
    answers: tuple[PromptAnswer, ...] = Field(
        min_length=1,
        max_length=MAX_PROMPTS,
        description="The answers, in the order of the prompts.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
