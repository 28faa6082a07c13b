import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.completions import events
from perllm.completions.errors import CompletionError
from perllm.completions.events import ServerEvent, read_events

STREAM = ': hello\n\ndata: {"a": "é"}\n\nevent: x\ndata:one\ndata: two\n\nid: 1\n\ndata: [DONE]\n\n'.encode()
EVENTS = ['{"a": "é"}'.encode(), b"one\ntwo", b"[DONE]"]


async def read(chunks: list[bytes]) -> list[bytes]:
    async def flow() -> AsyncIterator[bytes]:
        for one in chunks:
            yield one

    return [event.data async for event in read_events(flow())]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
async def test_events_are_the_same_however_lines_end_and_the_stream_is_cut(line_end: bytes, cuts: list[int]) -> None:
    content = STREAM.replace(b"\n", line_end)
    bounds = [0, *sorted(cuts), len(content)]
    assert await read([content[start:end] for start, end in itertools.pairwise(bounds)]) == EVENTS


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_last_event_may_lack_its_empty_line(end: bytes) -> None:
    assert await read([b'data: {"a": 1}' + end]) == [b'{"a": 1}']


@pytest.mark.parametrize("content", [b'data: {"a": ', b"data: [DO", b"data: {oops\n"])
async def test_what_the_end_of_the_stream_cuts_off_is_not_an_event(content: bytes) -> None:
    assert await read([b"data: x\n\n", content]) == [b"x"]


async def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    assert await read([b"\xef\xbb\xbfdata: a\n\ndata: b\n\n"]) == [b"a", b"b"]


@pytest.mark.parametrize("content", [b"event: error\ndata: {}\n\n", b"error: {}\n\n"])
async def test_an_event_that_is_called_an_error_is_one(content: bytes) -> None:
    async def flow() -> AsyncIterator[bytes]:
        yield content + b"data: x\n\n"

    assert [event async for event in read_events(flow())] == [ServerEvent(b"{}", is_error=True), ServerEvent(b"x")]


@pytest.mark.parametrize("content", [[b"data: ", *[b"x" * 2**20] * 20], [b"data:\n" * 2**15] * 1000])
async def test_an_event_without_end_is_given_up(content: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 2**20)
    with pytest.raises(CompletionError, match="an event of more than"):
        await read(content)
