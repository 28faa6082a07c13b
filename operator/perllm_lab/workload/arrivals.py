"""The arrival of one request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request arrives, in seconds from the first, its lengths in tokens, and the service that makes it."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    service: str = ""
