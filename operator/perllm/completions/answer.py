"""The answer to one prompt. It grows while it is streamed, so that a partial answer can be reported at any moment."""

from dataclasses import dataclass, field
from typing import Any

from perllm.api.report import TokenSource


@dataclass(slots=True, kw_only=True)
class Answer:
    """An answer. Times are seconds of a monotonic clock, None until they are known.

    Attributes:
        pieces: pieces of the text, in order.
        chunks: number of pieces of text or reasoning received.
        load_s: seconds in which the server loaded the model before; None if it had it, or that is not known.
        sent_s: when the request that is being answered was sent; None if the server was not ready for it.
        first_s: when the first token arrived.
        ended_s: when the answer was complete, or had failed.
        reported_prompt_tokens: number of prompt tokens reported by the server.
        reported_output_tokens: number of tokens of the answer reported by the server.
        finish_reason: why the server ended the answer: stop, length, ...
        problem: why the answer is missing or incomplete; empty if it is complete.
        is_streamed: whether it arrived in pieces; otherwise their number says nothing about tokens.
        prompt_id: id of the prompt in its file.
    """

    pieces: list[str] = field(default_factory=list)
    chunks: int = 0
    load_s: float | None = None
    sent_s: float | None = None
    first_s: float | None = None
    ended_s: float | None = None
    reported_prompt_tokens: int | None = None
    reported_output_tokens: int | None = None
    finish_reason: str | None = None
    problem: str = "was not asked"
    is_streamed: bool = True
    prompt_id: str | None = None

    @property
    def text(self) -> str:
        """The text received so far."""
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int | None:
        """Tokens of the answer: as reported by the server, else the number of pieces; None if neither is known."""
        if self.reported_output_tokens is not None:
            return self.reported_output_tokens
        return self.chunks if self.is_streamed else None

    @property
    def token_source(self) -> TokenSource | None:
        """Where the number of tokens comes from; None if it is unknown."""
        if self.reported_output_tokens is not None:
            return TokenSource.USAGE
        return TokenSource.CHUNKS if self.is_streamed else None

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the request to the first token."""
        return None if self.sent_s is None or self.first_s is None else self.first_s - self.sent_s

    @property
    def length_s(self) -> float | None:
        """Seconds from the request to the end."""
        return None if self.sent_s is None or self.ended_s is None else self.ended_s - self.sent_s

    def to_object(self, index: int) -> dict[str, Any]:
        """Return the answer as one line of a result, without unknown values."""
        values = {
            "index": index,
            "id": self.prompt_id,
            "text": self.text,
            "finishReason": self.finish_reason,
            "promptTokens": self.reported_prompt_tokens,
            "outputTokens": self.output_tokens,
            "tokenSource": self.token_source,
            "timeToFirstTokenSeconds": _round(self.first_token_s),
            "inferenceSeconds": _round(self.length_s),
            "problem": self.problem or None,
        }
        return {key: value for key, value in values.items() if value is not None}


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
