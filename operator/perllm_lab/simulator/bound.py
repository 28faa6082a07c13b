"""An upper bound on goodput that no policy can beat: a linear program, solved by HiGHS.

    maximise   sum of x[c, g, s]                      tasks of class c worked on in slot of time s on GPUs of kind g
    subject to sum over g, s of x[c, g, s]         <= tasks in c               each task counts once
               sum over c of work[c, g] x[c, g, s] <= GPUs of g * length of s  GPU seconds
               sum over c, s of hold[c, g] x[c, g, s] <= slots of g * horizon  slot seconds
               x[c, g, s] >= 0, and only where s overlaps the time in which work on c can be in time on g

A kind g is a GPU type behind a link of one kind. Work on a task may begin after pod start, round trip and a transfer
that has the best bandwidth to itself, and must end by the deadline; a kind on which the remaining time is too short for
prefill and the answer at batch 1 is not an option.

`work` is the least number of GPU seconds: prefill + answer * (a / B + b), at the largest mean batch B, at most the
slots, at which the task can still be in time: prefill + answer * (a + b B) <= time left. Since a / B is convex no
sequence of batches of that mean takes less. `hold` is the least time a slot is taken: everything at batch 1.

What it relaxes, so that the true optimum is below it:
    lengths and arrivals are known in advance; tasks may be divided among GPUs and nodes, interrupted and moved at no
    cost; tasks do not slow each other down beyond the capacity they use; every transfer has its link to itself and at
    its best; models are loaded, nodes never fail, and nodes that join late are there from the start; every batch is as
    good as the task allows, whatever else runs; tasks before those given take no capacity, and work continues after the
    last arrival; slots of time count whole when they overlap a task's time. Energy plays no part.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import VARIATION, LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.workload.requests import Request

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_VARIABLES = 50_000
"""Slots of time are chosen long enough to need no more; longer slots loosen the bound but never invalidate it."""

SHORTEST_SLOT_S = 0.5
SAFETY = 1e-6
"""Relative; covers the tolerances of the solver."""


class BoundError(RuntimeError):
    """The solver failed; the message is the solver's."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The best conditions in a run, as factors of nominal figures.

    Attributes:
        bandwidth: of the uplinks, random variation included.
        speed: of the GPUs.
    """

    bandwidth: float = 1.0 + VARIATION
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class _Tasks:
    at_s: Floats
    due_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    input_bits: Floats


@dataclass(frozen=True, slots=True)
class _Options:
    """Tasks on one kind of GPU; every array has one entry per task that can be in time there."""

    task: Ints
    from_s: Floats
    until_s: Floats
    work_s: Floats
    hold_s: Floats


def goodput_bound(
    nodes: Sequence[NodeSpec], requests: Sequence[Request], window_s: float, conditions: Conditions | None = None
) -> float:
    """Return an upper bound on the tasks in time per second, of those in `requests`, over a window of `window_s`.

    Raises:
        ValueError: the window is not positive.
        BoundError: the solver failed.
    """
    if not window_s > 0:
        raise ValueError(f"a window lasts more than 0 s, not {window_s:g} s")
    if not requests or not nodes:
        return 0.0
    tasks = _read(requests)
    kinds = _count_kinds(nodes)
    options = [_find_options(gpu, link, tasks, conditions or Conditions()) for gpu, link in kinds]
    if not sum(len(each.task) for each in options):
        return 0.0
    in_time = _solve(tasks, options, list(kinds.values()), [gpu.slots for gpu, _ in kinds])
    return min(in_time * (1.0 + SAFETY), float(len(requests))) / window_s


def _read(requests: Sequence[Request]) -> _Tasks:
    at_s = np.array([request.at_s for request in requests])
    return _Tasks(
        at_s,
        at_s + np.array([request.deadline_s for request in requests]),
        np.array([request.prompt_tokens for request in requests], dtype=np.float64),
        np.array([request.output_tokens for request in requests], dtype=np.float64),
        np.array([request.input_bytes * 8.0 for request in requests]),
    )


def _count_kinds(nodes: Sequence[NodeSpec]) -> dict[tuple[GpuType, LinkType], int]:
    kinds: Counter[tuple[GpuType, LinkType]] = Counter()
    for node in nodes:
        kinds[(node.gpu, node.link)] += node.gpus
    return dict(kinds)


def _find_options(gpu: GpuType, link: LinkType, tasks: _Tasks, best: Conditions) -> _Options:
    opening_s = gpu.pod_start_s + link.rtt_s + tasks.input_bits / (link.bandwidth_bps * best.bandwidth)
    prefill_s = gpu.prefill_per_token_s / best.speed * tasks.prompt_tokens
    base_s, per_task_s = gpu.iteration_base_s / best.speed, gpu.iteration_per_task_s / best.speed
    from_s = tasks.at_s + opening_s
    token_s = (tasks.due_s - from_s - prefill_s) / np.maximum(tasks.output_tokens, 1.0)
    task = np.flatnonzero(token_s >= (base_s + per_task_s) * (1.0 - SAFETY))
    batch = np.minimum((token_s[task] - base_s) / per_task_s, gpu.slots) if per_task_s else gpu.slots
    output = tasks.output_tokens[task]
    work_s = prefill_s[task] + output * (base_s / np.maximum(batch, 1.0) + per_task_s)
    hold_s = opening_s[task] + prefill_s[task] + output * (base_s + per_task_s)
    return _Options(task, from_s[task], tasks.due_s[task], work_s, hold_s)


def _solve(tasks: _Tasks, options: Sequence[_Options], gpus: Sequence[int], slots: Sequence[int]) -> float:
    begin_s, end_s = float(tasks.at_s.min()), float(tasks.due_s.max())
    slot_s = _choose_slot_s(options)
    periods = int((end_s - begin_s) / slot_s) + 1
    program = _Program(len(tasks.at_s))
    for each, number, width in zip(options, gpus, slots, strict=True):
        position, period = _expand(each, begin_s, slot_s)
        capacity = program.add_rows(np.full(periods, number * slot_s))
        held = program.add_rows(np.array([number * width * (end_s - begin_s)]))
        program.add_columns(
            (each.task[position], np.ones(len(position))),
            (capacity + period, each.work_s[position]),
            (np.full(len(position), held), each.hold_s[position]),
        )
    return program.maximise()


def _choose_slot_s(options: Sequence[_Options]) -> float:
    spans_s = sum(float((each.until_s - each.from_s).sum()) for each in options)
    pairs = sum(len(each.task) for each in options)
    return max(spans_s / max(MAX_VARIABLES - 2 * pairs, MAX_VARIABLES / 10), SHORTEST_SLOT_S)


def _expand(options: _Options, begin_s: float, slot_s: float) -> tuple[Ints, Ints]:
    """Return for every pair of an option and a slot of time that overlaps it the option's position and the slot."""
    first = ((options.from_s - begin_s) / slot_s).astype(np.int64)
    last = ((options.until_s - begin_s) / slot_s).astype(np.int64)
    lengths = last - first + 1
    position = np.repeat(np.arange(len(first)), lengths)
    starts = np.cumsum(lengths) - lengths
    return position, first[position] + np.arange(len(position)) - starts[position]


class _Program:
    """Maximises the sum of variables >= 0 under rows of <= ; the first rows say that each task counts once."""

    def __init__(self, tasks: int) -> None:
        self._limits: list[Floats] = [np.ones(tasks)]
        self._entries: list[tuple[Ints, Ints, Floats]] = []
        self._rows, self._columns = tasks, 0

    def add_rows(self, limits: Floats) -> int:
        """Add rows and return the number of the first."""
        first, self._rows = self._rows, self._rows + len(limits)
        self._limits.append(limits)
        return first

    def add_columns(self, *entries: tuple[Ints, Floats]) -> None:
        """Add variables; each entry holds a row and a coefficient for every one of them."""
        count = len(entries[0][0])
        columns = self._columns + np.arange(count)
        self._entries += [(rows, columns, coefficients) for rows, coefficients in entries]
        self._columns += count

    def maximise(self) -> float:
        rows, columns, coefficients = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        matrix = coo_array((coefficients, (rows, columns)), shape=(self._rows, self._columns)).tocsc()
        solved = linprog(-np.ones(self._columns), A_ub=matrix, b_ub=np.concatenate(self._limits), method="highs-ipm")
        if solved.status != 0:
            raise BoundError(f"no bound on goodput: {solved.message}")
        return -float(solved.fun)
