"""Base class and field types shared by all resource models."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, WithJsonSchema
from pydantic.alias_generators import to_camel

from perllm.api.quantities import parse_duration_s, parse_quantity

MAX_DEADLINE_S = 24 * 3600
MAX_TTL_S = 30 * 24 * 3600
MAX_INPUT_BYTES = 2**40
MAX_TOKENS = 10_000_000


class Resource(BaseModel):
    """Part of a resource: camelCase in JSON, immutable in Python."""

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, alias_generator=to_camel, extra="ignore", protected_namespaces=()
    )

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object that Kubernetes stores, without absent values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def change(self, **fields: object) -> Self:
        """Return a copy with other values, which are not validated; the same object if nothing differs."""
        different = {name: value for name, value in fields.items() if getattr(self, name) != value}
        return self.model_copy(update=different) if different else self


def _check_deadline(text: str) -> str:
    if not 0 < parse_duration_s(text) <= MAX_DEADLINE_S:
        raise ValueError("must be more than 0s and at most 24h")
    return text


def _check_ttl(text: str) -> str:
    if parse_duration_s(text) > MAX_TTL_S:
        raise ValueError("must be at most 720h")
    return text


def _check_input_bytes(value: int | str) -> int | str:
    if not 0 <= parse_quantity(value) <= MAX_INPUT_BYTES:
        raise ValueError("must be between 0 and 1Ti")
    return value


def _round_to_milli(value: float) -> float:
    return round(value, 3)


def _round_to_tenth_of_milli(value: float) -> float:
    return round(value, 4)


def _round_to_four_digits(value: float) -> float:
    return float(f"{value:.4g}")


# `kubectl get` shows these to people, so more digits would be noise. JSON has no NaN and no infinities.
Seconds = Annotated[FiniteFloat, AfterValidator(_round_to_milli)]
Joules = Annotated[FiniteFloat, AfterValidator(_round_to_milli)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1), AfterValidator(_round_to_tenth_of_milli)]
Figure = Annotated[FiniteFloat, Field(ge=0), AfterValidator(_round_to_four_digits)]
ModelName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9/._][A-Za-z0-9._:/@+-]*$")]
Amount = Annotated[FiniteFloat, AfterValidator(_round_to_four_digits)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Text = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=4096)]
Deadline = Annotated[str, Field(max_length=32), AfterValidator(_check_deadline)]
Ttl = Annotated[str, Field(max_length=32), AfterValidator(_check_ttl)]
InputBytes = Annotated[
    int | str,
    AfterValidator(_check_input_bytes),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
