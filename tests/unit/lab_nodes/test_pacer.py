import asyncio

import pytest

from perllm_lab.nodes.pacer import Pacer

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(("streams", "per_second"), [(1, 20), (5, 20), (20, 5)])
async def test_streams_are_refreshed_more_rarely_where_there_are_many(streams, per_second):
    pacer, refreshed = Pacer(), []
    for number in range(streams):
        pacer.add(f"stream-{number}", lambda number=number: refreshed.append(number))
    await asyncio.sleep(10.01)
    assert refreshed.count(0) == pytest.approx(10 * per_second, rel=0.02)
    assert len(refreshed) == streams * refreshed.count(0)


async def test_a_stream_that_has_ended_is_refreshed_no_more():
    pacer, refreshed = Pacer(), []
    pacer.add("a", lambda: pacer.discard("b"))
    pacer.add("b", lambda: refreshed.append("b"))
    await asyncio.sleep(1)
    assert refreshed == []
