"""What model servers do at the same time on one GPU, and how often it got done."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Span = tuple[float, float]
"""When a pass was launched, and when it was known to be complete."""

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Load:
    """What one model server does again and again.

    Attributes:
        shape: Of its model.
        tasks: That gain a token each in a pass; 0 if it reads.
        prompt: Tokens that a pass reads; 0 if it writes.
        duty: Share of the time in which it would be busy, were it alone.
        burst: Passes in a row between two pauses, if it pauses.
        ahead: Passes that are launched and not complete at a time; servers await each one.
        gap_s: Which the server itself takes between two passes.
    """

    shape: str
    tasks: int = 0
    prompt: int = 0
    duty: float = 1.0
    burst: int = 1
    ahead: int = 1
    gap_s: float = 0.0

    @property
    def work(self) -> tuple[str, int, int]:
        """What a pass does, however often it is done."""
        return self.shape, self.tasks, self.prompt

    def find_period_s(self, alone_s: float) -> float:
        """Return the time from burst to burst, if a pass takes so long where nothing else runs; 0 without pauses."""
        return self.burst * alone_s / self.duty if self.duty < 1.0 else 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """A load, and the seconds from one of its bursts to the next; 0 for no pauses."""

    load: Load
    period_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Processes that have the GPU, with the shapes of their models, and the loads that are measured together."""

    processes: tuple[tuple[str, ...], ...]
    points: tuple[tuple[Load, ...], ...]


class Mark(Protocol):
    """Something in the GPU's queue that can be waited for."""

    def synchronize(self) -> object:
        """Return once the GPU has come to it."""


def repeat(
    order: Order,
    window: Span,
    *,
    launch: Callable[[], Mark],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> list[Span]:
    """Do what is ordered from the beginning of a window to its end, and return all passes."""
    begin_s, end_s = window
    spans: list[Span] = []
    queue: deque[tuple[float, Mark]] = deque()
    launched, due_s = 0, begin_s
    while True:
        sleep(max(due_s - clock(), 0.0))
        if clock() >= end_s:
            break
        queue.append((clock(), launch()))
        launched += 1
        pauses = order.period_s > 0.0 and launched % order.load.burst == 0
        while queue and (pauses or len(queue) >= order.load.ahead):
            launched_s, mark = queue.popleft()
            mark.synchronize()
            spans.append((launched_s, clock()))
        if order.load.gap_s > 0.0:
            sleep(order.load.gap_s)
        if pauses:
            # Late is late: what was missed is not caught up on.
            due_s = max(due_s + order.period_s, clock())
    for _, mark in queue:
        mark.synchronize()
    return spans


def divide(processes: Sequence[Sequence[str]], loads: Sequence[Load]) -> list[list[int]]:
    """Return which loads each process does: one for each of its models at most, and the first that is free does it.

    Args:
        processes: With the shapes of their models.
        loads: To be done together.
    """
    free = [list(shapes) for shapes in processes]
    shares: list[list[int]] = [[] for _ in processes]
    for number, load in enumerate(loads):
        place = next(place for place, shapes in enumerate(free) if load.shape in shapes)
        free[place].remove(load.shape)
        shares[place].append(number)
    return shares


def describe_passes(load: Load, spans: Sequence[Span], window: Span) -> dict[str, float]:
    """Return how long the passes took that ended in a window, and how often they came.

    Args:
        load: That was done.
        spans: In the order of their ends.
        window: Of the measurement.
    """
    inside = [span for span in spans if window[0] <= span[1] <= window[1]]
    if len(inside) < 2:
        return {"passes": float(len(inside))}
    begins_s, ends_s = np.array(inside).T
    lengths_s, between_s = ends_s - begins_s, float((ends_s[-1] - ends_s[0]) / (len(inside) - 1))
    found = {
        "passes": float(len(inside)),
        "pass_s": between_s if load.ahead > 1 else float(lengths_s.mean()),
        "passes_per_s": 1.0 / between_s if load.duty == 1.0 else len(inside) / (window[1] - window[0]),
    }
    return found | {f"pass_s_{share:.0%}": float(np.quantile(lengths_s, share)) for share in QUANTILES}
