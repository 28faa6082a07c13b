"""The ``LLMNodeServer``: the model servers of one node, as its agent sees them."""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from perllm.api.base import Figure, Message, Resource, Text
from perllm.api.node_profile import ModelName

MAX_SERVERS = 16
MAX_SERVED_MODELS = 64


class InferenceEngine(StrEnum):
    """The inference engine of a model server."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llama.cpp"
    OLLAMA = "ollama"
    OTHER = "other"


class NodeModelServer(Resource):
    """One model server."""

    url: Text = Field(description="Where the agent sends requests to, up to the version, such as .../v1.")
    engine: InferenceEngine = Field(
        default=InferenceEngine.OTHER, description="The inference engine, as far as it can be recognised."
    )
    ready: bool = Field(default=False, description="Whether it accepts requests.")
    problem: Message | None = Field(default=None, description="Why it is not ready.")
    models: tuple[ModelName, ...] = Field(
        default=(),
        max_length=MAX_SERVED_MODELS,
        description="The models that it serves, by the names that requests use.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    unloaded: tuple[ModelName, ...] = Field(
        default=(),
        max_length=MAX_SERVED_MODELS,
        description="Those of the models that it has to load first.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    slots: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="How many requests it processes at a time; absent if unknown."
    )
    slots_learned: bool | None = Field(
        default=None, description="True if the number of slots was learned from the behaviour of the server."
    )
    running: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Requests in process.")
    waiting: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Requests that wait in the server.")
    foreign: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Requests, in process or waiting, that are not PerLLM's."
    )
    cache_use: Figure | None = Field(default=None, description="Share of the key-value cache that is in use.")


class NodeServerStatus(Resource):
    """The model servers of the node. Written only by its agent."""

    agent_version: Text | None = Field(default=None, description="Version of the agent.")
    updated_time: AwareDatetime | None = Field(default=None, description="When this status was written.")
    ready: Text = Field(default="0/0", description="How many of the model servers accept requests.")
    models: tuple[ModelName, ...] = Field(
        default=(),
        max_length=MAX_SERVED_MODELS,
        description="The models that can be asked for now.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    running: Annotated[int, Field(ge=0)] = Field(default=0, description="Requests in process, of all servers.")
    foreign: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Requests of all servers that are not PerLLM's, in process or waiting."
    )
    servers: tuple[NodeModelServer, ...] = Field(
        default=(),
        max_length=MAX_SERVERS,
        description="The model servers.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
