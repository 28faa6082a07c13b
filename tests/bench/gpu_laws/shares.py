"""What each task took of the energy, from the passes that it was part of: independent of how PerLLM attributes it.

The counter moves every 0.1 s, in which there are some ten passes. What it rose by is split among them in proportion to
their length and to the power of their kind, which is fitted to all steps of the counter:

    watts   r while a prompt is read,  w + v B while B tasks write,  i while nothing runs

A prompt's energy is that of its task; all tasks of an iteration have equal shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.gpu_laws.engine import GpuPass
from bench.gpu_laws.load_record import LoadRecord
from bench.gpu_laws.readings import FloatArray, find_changes

BETWEEN_PASSES_S = 0.005
"""A shorter pause between two passes is work of the server, and counts as part of the next one."""

LAGS_S = np.arange(0.0, 0.15, 0.01)
"""The counter may show what happened so long ago."""


@dataclass(frozen=True, slots=True)
class PassShares:
    """The energy of a record, pass by pass.

    Attributes:
        task_j: By number of the task.
        passes_j: Of all passes together.
        reading_w: r.
        writing_w: w.
        writing_task_w: v.
        idle_w: i.
        lag_s: By which the counter was late.
    """

    task_j: dict[int, float]
    passes_j: float
    reading_w: float
    writing_w: float
    writing_task_w: float
    idle_w: float
    lag_s: float


def share_passes(record: LoadRecord) -> PassShares:
    """Split what the counter shows among the tasks of a record."""
    readings, passes = record.readings, record.passes
    steps = find_changes(readings.energy_j)
    step_s, step_j = readings.time_s[steps], readings.energy_j[steps]
    bounds_s, lengths_s, batch, is_read = _lay_out(passes)
    kinds = np.stack([lengths_s * is_read, lengths_s * ~is_read, lengths_s * ~is_read * batch])
    until = np.concatenate([np.zeros((3, 1)), np.cumsum(_with_pauses(kinds), axis=1)], axis=1)

    def count(times_s: FloatArray) -> FloatArray:
        """Return the seconds of each kind until then, idle ones last, shape (4, times)."""
        done = np.stack([np.interp(times_s, bounds_s, one) for one in until])
        return np.concatenate([done, [times_s - done[0] - done[1]]])

    def fit(lag_s: float) -> tuple[float, FloatArray]:
        """Return what remains of the squares, and the powers."""
        columns = np.diff(count(step_s - lag_s), axis=1).T
        powers_w = np.linalg.lstsq(columns, np.diff(step_j), rcond=None)[0].astype(np.float64)
        return float(np.square(columns @ powers_w - np.diff(step_j)).sum()), powers_w

    lag_s = float(min(LAGS_S, key=lambda lag_s: fit(lag_s)[0]))
    powers_w = fit(lag_s)[1]
    expected_j = powers_w @ count(bounds_s)
    actual_j = np.interp(expected_j, powers_w @ count(step_s - lag_s), step_j)
    pass_j = np.diff(actual_j)[::2]
    reading_w, writing_w, writing_task_w, idle_w = powers_w.tolist()
    return PassShares(
        task_j=_sum_by_task(record, pass_j),
        passes_j=float(pass_j.sum()),
        reading_w=reading_w,
        writing_w=writing_w,
        writing_task_w=writing_task_w,
        idle_w=idle_w,
        lag_s=lag_s,
    )


def _lay_out(passes: Sequence[GpuPass]) -> tuple[FloatArray, FloatArray, FloatArray, np.ndarray]:
    """Return starts and ends of passes in turn, lengths, tasks, and whether each reads; pauses of the server go."""
    starts_s, ends_s = (np.array([getattr(one, name) for one in passes]) for name in ("start_s", "end_s"))
    before_s = np.concatenate([[-np.inf], ends_s[:-1]])
    starts_s = np.where(starts_s - before_s < BETWEEN_PASSES_S, before_s, starts_s)
    bounds_s = np.stack([starts_s, ends_s], axis=1).ravel()
    batch = np.array([one.tasks for one in passes], dtype=np.float64)
    return bounds_s, ends_s - starts_s, batch, np.array([one.reader >= 0 for one in passes])


def _with_pauses(kinds: FloatArray) -> FloatArray:
    """Return the same for passes and the pauses between them in turn, shape (3, 2 passes - 1)."""
    spread = np.zeros((len(kinds), 2 * kinds.shape[1] - 1))
    spread[:, ::2] = kinds
    return spread


def _sum_by_task(record: LoadRecord, pass_j: FloatArray) -> dict[int, float]:
    """Return the energy of each task: of the pass that read it, and its share of those in which it wrote."""
    readers, batch, ends_s = (
        np.array([getattr(one, name) for one in record.passes]) for name in ("reader", "tasks", "end_s")
    )
    writes = readers < 0
    read_j = dict(zip(readers[~writes].tolist(), pass_j[~writes].tolist(), strict=True))
    until_j = np.concatenate([[0.0], np.cumsum((pass_j / batch)[writes])])
    spans_s = np.array([[task.first_token_s, task.ended_s] for task in record.tasks])
    written_j = np.diff(until_j[np.searchsorted(ends_s[writes], spans_s, side="right")], axis=1)[:, 0]
    numbers = [task.number for task in record.tasks]
    return {number: read_j[number] + own_j for number, own_j in zip(numbers, written_j.tolist(), strict=True)}
