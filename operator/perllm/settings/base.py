"""What the sections of the configuration have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

Name = Annotated[str, Field(pattern=f"^{_DNS_LABEL}$", max_length=63)]
NameOrNothing = Annotated[str, Field(pattern=f"^({_DNS_LABEL})?$", max_length=63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ConfigSection(BaseModel):
    """A section: it cannot be changed, and knows all its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def check_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values.

    Raises:
        ValueError: one of them is there more than once.
    """
    if len(set(values)) < len(values):
        raise ValueError("must have each name only once")
    return values
