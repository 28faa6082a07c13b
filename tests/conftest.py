import asyncio


def pytest_configure() -> None:
    # looptime asks for the current loop even around tests that are not async; Python 3.11 then makes one that nobody
    # closes, unless somebody has said that there is none.
    asyncio.set_event_loop(None)
