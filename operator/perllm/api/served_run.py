"""What the agent of a node reports about the request that it made for a task, or the requests."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from perllm.api.base import Message, Resource, Seconds, Text, Tokens
from perllm.api.report import TokenSource


class RunEnd(StrEnum):
    """How a request ended."""

    ANSWERED = "Answered"
    FAILED = "Failed"
    UNAVAILABLE = "Unavailable"


class PromptCounts(Resource):
    """What became of several prompts."""

    total: int = Field(ge=1, description="Number of prompts.")
    answered: int = Field(ge=0, description="Prompts with a complete answer.")
    failed: int = Field(ge=0, description="Prompts without one; the LLMTaskAnswer says why.")
    repeated: int = Field(default=0, ge=0, description="Requests that were made again.")


class ServedRun(Resource):
    """One attempt at a task, made as a request to a model server. Written by the agent of the node.

    If the task has several prompts, times and tokens are those of all requests together.
    """

    attempt: int = Field(ge=1, description="The attempt that this is about.")
    end: RunEnd = Field(
        description="Answered: the answer is complete, or of several prompts at least one; Failed: the request failed; "
        "Unavailable: the server did not accept it, so that it does not count as a failure of the task."
    )
    start_time: AwareDatetime = Field(description="When the agent sent the request, by the clock of the API server.")
    end_time: AwareDatetime = Field(description="When the answer was complete, or the request failed.")
    load_time: Seconds | None = Field(
        default=None,
        description="Seconds in which the server loaded the model first, before the time to the first token.",
    )
    time_to_first_token: Seconds | None = Field(
        default=None, description="Seconds from the request to the first token; the mean over all prompts."
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Number of prompt tokens, if reported.")
    tokens: Tokens | None = Field(default=None, description="Number of generated tokens.")
    token_source: TokenSource | None = Field(
        default=None,
        description="usage: reported by the model server; chunks: pieces of its stream, which may hold several tokens.",
    )
    finish_reason: Text | None = Field(
        default=None, description="Why the model server ended the answer, for example stop or length."
    )
    problem: Message | None = Field(default=None, description="Why there is no complete answer.")
    retry_after: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds after which the server asked for a retry."
    )
    prompts: PromptCounts | None = Field(
        default=None, description="How many prompts were answered, if the task has several."
    )
