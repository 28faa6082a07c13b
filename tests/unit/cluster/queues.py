"""A queue of writes for tests."""

import asyncio
from random import Random

from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.guard import Guard


def make_guard() -> Guard:
    return Guard(lambda _: None, Random(0))


def make_writes() -> WriteQueue:
    return WriteQueue(make_guard(), Outages(asyncio.get_running_loop().time), Random(0))
