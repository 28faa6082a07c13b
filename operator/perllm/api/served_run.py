"""What the agent of a node reports about the request that it made for a task."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from perllm.api.base import Message, Resource, Seconds, Tokens
from perllm.api.report import TokenSource


class RunEnd(StrEnum):
    """How a request ended."""

    ANSWERED = "Answered"
    FAILED = "Failed"
    UNAVAILABLE = "Unavailable"


class ServedRun(Resource):
    """One attempt at a task, made as a request to a model server. Written by the agent of the node."""

    attempt: int = Field(ge=1, description="The attempt that this is about.")
    end: RunEnd = Field(
        description="Answered: the answer is complete; Failed: the request failed; Unavailable: the server did not "
        "accept it, so that it does not count as a failure of the task."
    )
    start_time: AwareDatetime = Field(description="When the agent sent the request, by the clock of the API server.")
    end_time: AwareDatetime = Field(description="When the answer was complete, or the request failed.")
    time_to_first_token: Seconds | None = Field(
        default=None, description="Seconds from the request to the first token."
    )
    prompt_tokens: Tokens | None = Field(default=None, description="Number of prompt tokens, if reported.")
    tokens: Tokens | None = Field(default=None, description="Number of generated tokens.")
    token_source: TokenSource | None = Field(
        default=None,
        description="usage: reported by the model server; chunks: pieces of its stream, which may hold several tokens.",
    )
    problem: Message | None = Field(default=None, description="Why there is no complete answer.")
    retry_after: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds after which the server asked for a retry."
    )
