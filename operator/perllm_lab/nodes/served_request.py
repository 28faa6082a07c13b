"""One request in the model server of a simulated node."""

import asyncio
from enum import StrEnum


class RequestEnd(StrEnum):
    """How a request ended."""

    SUCCEEDED = "Succeeded"
    ABORTED = "Aborted"
    LOST = "Lost"


class ServedRequest:
    """A request and how far its answer has got.

    Attributes:
        request_id: its X-Request-Id; empty if it had none.
        task: its name in the ground truth.
        streams: whether the client wants the answer token by token.
        key: of its job on the machine; empty until it is submitted.
        tokens: of the answer, as far as the client is to know.
        end: how it ended; None while it runs.
    """

    def __init__(self, request_id: str, task: str, *, streams: bool) -> None:
        self.request_id = request_id
        self.task = task
        self.streams = streams
        self.key = ""
        self.tokens = 0
        self.end: RequestEnd | None = None
        self._changed = asyncio.Event()

    def grow(self, tokens: int) -> None:
        """Give the client what there is of the answer."""
        if tokens > self.tokens:
            self.tokens = tokens
            self._changed.set()

    def finish(self, end: RequestEnd) -> None:
        """End it."""
        self.end = end
        self._changed.set()

    async def wait(self) -> None:
        """Wait until there is more of the answer, or the request has ended."""
        await self._changed.wait()
        self._changed.clear()
