import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from e2e.chaos.link import Link

NONE_YET_S = 0.1


@pytest.fixture
async def link():
    """Leads to a server that answers every line with the same line."""

    async def echo(reader, writer):
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        async with Link(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:
            yield link
        await asyncio.sleep(0.01)  # until the server has noticed


@asynccontextmanager
async def connect(link):
    """A client that says a line and returns the answer: None if there is none yet, empty if there will be none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(link.url.rpartition(":")[2]))

    async def say(line, wait_s=5.0):
        writer.write(line + b"\n")
        try:
            return await asyncio.wait_for(reader.readline(), wait_s)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""

    try:
        yield say
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_link_forwards_in_both_directions_under_the_same_scheme(link):
    assert link.url.startswith("https://127.0.0.1:")
    async with connect(link) as say:
        assert await say(b"hello") == b"hello\n"


async def test_a_cut_ends_all_connections_and_every_new_one_until_it_is_restored(link):
    async with connect(link) as say:
        await say(b"hello")
        link.cut()
        assert await say(b"again") == b""
    async with connect(link) as say:
        assert await say(b"new") == b""
    link.restore()
    async with connect(link) as say:
        assert await say(b"hello") == b"hello\n"


async def test_a_stall_holds_everything_back_until_it_is_restored(link):
    async with connect(link) as say:
        await say(b"hello")
        link.stall()
        assert await say(b"one", NONE_YET_S) is None
        link.restore()
        assert await say(b"two") == b"one\n"


async def test_a_silenced_connection_never_works_again_and_new_ones_do(link):
    async with connect(link) as silent:
        await silent(b"hello")
        link.silence()
        assert await silent(b"again", NONE_YET_S) is None
        link.restore()
        assert await silent(b"again", NONE_YET_S) is None
    async with connect(link) as say:
        assert await say(b"new") == b"new\n"


async def test_a_slow_link_delays_what_it_forwards(link):
    async with connect(link) as say:
        link.delay_s = 0.5
        assert await say(b"hello", NONE_YET_S) is None
        link.restore()
