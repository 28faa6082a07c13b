"""How much more power a node draws while it reads a prompt than while its tasks decode."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perllm.energy.intervals import Intervals
from perllm.energy.presence import Presence
from perllm.energy.spans import Span, Usage, count_readers, find_readings

MOST = 3.0
"""No ratio is taken for larger. None is below 1: reading keeps a GPU as busy as decoding, or more."""

NOISE = 0.15
"""How far the power while tasks decode scatters from second to second, as a share of it."""


def observe_reading_power(
    usage: Usage, spans: Sequence[Span], intervals: Intervals, idle_w: float | None, busy: Presence
) -> Usage:
    """Return the usage of a node with the power at which it reads, relative to that at which tasks decode.

    In an interval with tasks for b seconds, in r of which a prompt is read, a node with one GPU draws p b + (q - p) r
    joules besides idle power. Both powers are fitted to all intervals by least squares. Equal powers are assumed
    before, so that few intervals, or those that have prompts in equal shares, say little.

    Args:
        usage: Of the node.
        spans: Of tasks that have ended.
        intervals: The energy of the node.
        idle_w: Its idle power; None if unknown.
        busy: All its tasks.
    """
    known = ~np.isnan(intervals.energy_j)
    if not known.any():
        return usage
    lengths_s = np.diff(intervals.times_s)[known]
    reading = count_readers(find_readings(spans, usage)).accumulate_s(intervals.times_s, usage.gpus) / usage.gpus
    columns = np.diff(np.stack([busy.accumulate_s(intervals.times_s), reading]), axis=1)[:, known]
    active_j = intervals.energy_j[known] - (idle_w or 0.0) * lengths_s
    rows = np.concatenate([(columns / np.sqrt(lengths_s)).T, [[0.0, NOISE]]])
    decoding_w, more_w = np.linalg.lstsq(rows, np.append(active_j / np.sqrt(lengths_s), 0.0), rcond=None)[0].tolist()
    if decoding_w <= 0.0:
        return usage
    return replace(usage, reading_power=min(max(1.0 + more_w / decoding_w, 1.0), MOST))
