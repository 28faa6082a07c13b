"""The arrival of one request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request comes, in seconds from the first, and how long it is in tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
