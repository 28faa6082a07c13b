"""What a task without a pod template asks of a model server: the prompt, and how the answer is generated."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from perllm.api.base import MAX_TOKENS, Resource

MAX_PROMPT_LENGTH = 131_072
"""Characters of all prompts or messages together; a task is one object in etcd, which takes 1.5 MB."""

MAX_MESSAGES = 256
MAX_PROMPTS = 256
"""Prompts of one task."""

MAX_STOPS = 4
MAX_STOP_LENGTH = 256

MAX_SEED = 2**53 - 1
"""The greatest integer that every JSON parser keeps; Helm, for one, reads numbers as floating point."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, with the vocabularies of current models; published by OpenAI as a rule of thumb."""

Characters = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_LENGTH)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class ChatRole(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class ChatMessage(Resource):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: ChatRole = Field(description="system, user or assistant.")
    content: Characters = Field(description="The text of the message.")


class Generation(Resource):
    """How an answer is generated, in the terms of OpenAI's API; what is absent is left to the model server."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        default=None, description="Maximum number of tokens that are generated."
    )
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = Field(
        default=None, description="Sampling temperature."
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="Only the most probable tokens with this total probability are sampled."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="Seed of the sampling, for servers that support it."
    )
    stop: Annotated[tuple[Stop, ...], Field(min_length=1, max_length=MAX_STOPS)] | None = Field(
        default=None,
        description="Texts at which the answer ends.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

    def to_body(self) -> dict[str, Any]:
        """Return the parameters by their names in OpenAI's API."""
        return self.model_dump(mode="json", exclude_none=True)


def estimate_tokens(characters: int, per_character: float = 1.0 / CHARACTERS_PER_TOKEN) -> int:
    """Return how many tokens a prompt of this length is taken to have until a server has counted them."""
    return min(max(round(characters * per_character), 1), MAX_TOKENS)
