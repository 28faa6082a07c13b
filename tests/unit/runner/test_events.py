import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.runner.events import read_events

STREAM = ': hello\n\ndata: {"a": "é"}\n\nevent: x\r\ndata:one\r\ndata: two\r\n\r\nid: 1\n\ndata: [DONE]\n\n'.encode()
EVENTS = ['{"a": "é"}'.encode(), b"one\ntwo", b"[DONE]"]


async def read(chunks: list[bytes]) -> list[bytes]:
    async def flow() -> AsyncIterator[bytes]:
        for one in chunks:
            yield one

    return [event async for event in read_events(flow())]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
async def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(STREAM)]
    assert await read([STREAM[start:end] for start, end in itertools.pairwise(bounds)]) == EVENTS


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_last_event_may_lack_its_empty_line(end: bytes) -> None:
    assert await read([b"data: last" + end]) == [b"last"]
