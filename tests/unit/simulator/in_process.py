"""Jobs in this process, in place of `run_parallel`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from perllm_lab.simulator.pool import OnProgress

S = TypeVar("S")
J = TypeVar("J")
T = TypeVar("T")


def run_here(
    work: Callable[[S, J], T], shared: S, jobs: Sequence[J], processes: int, on_progress: OnProgress | None = None
) -> list[T]:
    return [work(shared, job) for job in jobs]
