"""The answer to one prompt. It grows while it streams, so that what there is can be told at any moment."""

from dataclasses import dataclass, field
from typing import Any

from perllm.api.report import TokenSource


@dataclass(slots=True)
class Answer:
    """An answer; times are seconds of a monotonic clock, None until they are known.

    Attributes:
        pieces: the text, as it came.
        chunks: pieces of text or of reasoning that came.
        sent_s: when the request was sent that is being answered; None when the server was not ready for it.
        first_s: when the first token came.
        ended_s: when the answer was complete, or came to nothing.
        told_prompt_tokens: tokens of the prompt, as the server says.
        told_output_tokens: tokens of the answer, as the server says.
        finish_reason: why the server ended the answer: stop, length, ...
        problem: why the answer is missing or not complete; empty when it is.
        is_streamed: whether it came in pieces; else their number says nothing of tokens.
        prompt_id: what the prompt's line calls itself.
    """

    pieces: list[str] = field(default_factory=list)
    chunks: int = 0
    sent_s: float | None = None
    first_s: float | None = None
    ended_s: float | None = None
    told_prompt_tokens: int | None = None
    told_output_tokens: int | None = None
    finish_reason: str | None = None
    problem: str = "was not asked"
    is_streamed: bool = True
    prompt_id: str | None = None

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self.pieces)

    @property
    def output_tokens(self) -> int | None:
        """Tokens of the answer: as the server says, else the pieces that came; None where neither is known."""
        if self.told_output_tokens is not None:
            return self.told_output_tokens
        return self.chunks if self.is_streamed else None

    @property
    def token_source(self) -> TokenSource | None:
        """Where the number of tokens comes from; None where it is not known."""
        if self.told_output_tokens is not None:
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
        """Return the answer as one line of a result, without what is not known."""
        values = {
            "index": index,
            "id": self.prompt_id,
            "text": self.text,
            "finishReason": self.finish_reason,
            "promptTokens": self.told_prompt_tokens,
            "outputTokens": self.output_tokens,
            "tokenSource": self.token_source,
            "timeToFirstTokenSeconds": _round(self.first_token_s),
            "inferenceSeconds": _round(self.length_s),
            "problem": self.problem or None,
        }
        return {key: value for key, value in values.items() if value is not None}


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
