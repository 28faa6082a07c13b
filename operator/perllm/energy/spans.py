"""Spans: when tasks ran on a node, and what power each is expected to have drawn at each moment.

A model server reads one prompt at a time, in the order of arrival, which keeps the GPU busy; the other tasks of the
batch hardly proceed meanwhile. So while a prompt is read, the power of the GPU belongs to that task, and otherwise to
those that decode. When a prompt was read follows from the first tokens: it ends with the first token of its own task,
and takes as long as the node needs for its tokens, but at least as long as an iteration, which reads all weights as
well. All other time between the request and its first token, such as its way through the network and the prompts before
it, is waiting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from math import inf
from operator import attrgetter

import numpy as np

from perllm.energy.attribution import Phase, Window
from perllm.energy.bill import Owner
from perllm.energy.intervals import Array
from perllm.energy.presence import Presence
from perllm.learning.features import energy_features
from perllm.learning.priors import GENERIC

FOREVER_S = inf
MIN_SPAN_S = 0.001

_READING, _WAITING = 1e3, 1e-3
"""Weights of a task whose prompt is read by the only GPU, and of one that waits, relative to one that decodes."""

_PACE_QUANTILE = 0.05
"""Of the seconds per token from a request, or the first token before, to its first token, and from then to the last. A
low one, since waiting only adds to them, but not the minimum: a single odd time should not decide."""

_LEAST_DECODING = 0.1
"""A task decodes for at least this share of the time from its first token to its last."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a pod's inference ran, what it processed, and for whom.

    While it is running, ``end_s`` is infinite. Where it is not known what was processed, because it is running or was
    ended, ``prompt_tokens`` is what was expected and ``output_tokens`` is 0. ``first_token_s`` is None if it is
    unknown, or one of several.
    """

    pod_uid: str
    start_s: float
    end_s: float
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    first_token_s: float | None = None
    owner: Owner | None = None

    @property
    def length_s(self) -> float:
        """How long it ran."""
        return max(self.end_s - self.start_s, MIN_SPAN_S)

    @property
    def is_counted(self) -> bool:
        """Whether it is known how many tokens were written."""
        return self.end_s < FOREVER_S and self.output_tokens > 0


@dataclass(frozen=True, slots=True)
class Usage:
    """How a node is usually used.

    Attributes:
        occupancy: Mean number of tasks while there are any.
        gpus: How many prompts it can read at the same time.
        token_s: Seconds in which it reads a token of a prompt; infinite if unknown.
        iteration_s: Seconds in which each task gains a token if no prompt is read.
        reading_power: Of a GPU while it reads, relative to that while tasks decode, both without idle power.
    """

    occupancy: float = 1.0
    gpus: float = 1.0
    token_s: float = inf
    iteration_s: float = 0.0
    reading_power: float = 1.0

    def find_reading_s(self, prompt_tokens: Array) -> Array:
        """Return how long it takes to read prompts of so many tokens."""
        return np.maximum(prompt_tokens * self.token_s, self.iteration_s)


def weigh(spans: Sequence[Span], usage: Usage, nearby: Sequence[Span] = ()) -> list[Window]:
    """Return the spans as windows, weighted by their expected power.

    Tasks in a batch use the same energy per token. So the weight of a task that decodes is its expected energy by
    published figures, at the mean occupancy of the busy node, divided by the time it took in which no other prompt was
    read. Where it is not known when its prompt was read, the energy of that is spread over the whole run. A task that
    is still running, or was ended before it said how far it came, gets the mean weight of the others, and is expected
    to have read its prompt, since others would be charged for that otherwise.

    Args:
        spans: Of tasks.
        usage: Of their node.
        nearby: All other spans during any of these, whose prompts were read meanwhile.
    """
    counted = [span for span in spans if span.is_counted]
    readings = find_readings([*counted, *(span for span in nearby if span.is_counted)], usage)
    readings |= _expect_readings(spans, readings, usage)
    powers_w = _expect_powers_w(counted, readings, usage).tolist()
    usual_w = sum(powers_w) / len(powers_w) if powers_w else 1.0
    weights = dict(zip((span.pod_uid for span in counted), powers_w, strict=True))
    reader_w = usual_w * _weigh_reader(usage)
    power = 1.0 + (usage.reading_power - 1.0) / usage.gpus
    windows = []
    for span in spans:
        reading = readings.get(span.pod_uid)
        lead = (
            (Phase(span.start_s, reading[0], usual_w * _WAITING), Phase(*reading, reader_w, power))
            if reading is not None
            else ()
        )
        windows.append(Window(span.pod_uid, span.start_s, span.end_s, weights.get(span.pod_uid, usual_w), lead))
    return windows


def find_readings(spans: Sequence[Span], usage: Usage) -> dict[str, tuple[float, float]]:
    """Return when the prompts of tasks were read, by pod, as far as that is known."""
    known = [span for span in spans if span.first_token_s is not None and span.prompt_tokens > 0]
    if not known:
        return {}
    starts_s = np.array([span.start_s for span in known])
    firsts_s = np.array([span.first_token_s for span in known], dtype=float)
    longest_s = usage.find_reading_s(np.array([span.prompt_tokens for span in known]))
    begins_s = np.maximum(np.maximum(starts_s, _find_previous(firsts_s, round(usage.gpus))), firsts_s - longest_s)
    return {
        span.pod_uid: (begin_s, first_s)
        for span, begin_s, first_s in zip(known, begins_s.tolist(), firsts_s.tolist(), strict=True)
    }


def count_readers(readings: Mapping[str, tuple[float, float]]) -> Presence:
    """Return how many prompts are read at each moment."""
    return Presence.build([begin_s for begin_s, _ in readings.values()], [end_s for _, end_s in readings.values()])


def observe_usage(spans: Sequence[Span], gpus: float) -> Usage:
    """Return how a node with `gpus` GPUs was used by tasks that have ended; one without any has one reader as well."""
    gpus = max(gpus, 1.0)
    occupancy = Presence.build([span.start_s for span in spans], [span.end_s for span in spans]).find_mean()
    readings = find_readings(spans, Usage(gpus=gpus))
    read = [span for span in spans if span.pod_uid in readings]
    if not read:
        return Usage(occupancy, gpus)
    lengths_s = (end_s - begin_s for begin_s, end_s in readings.values())
    reading_s = [length_s / span.prompt_tokens for length_s, span in zip(lengths_s, read, strict=True)]
    writing_s = [(span.end_s - readings[span.pod_uid][1]) / max(span.output_tokens, 1.0) for span in read]
    token_s, iteration_s = (float(np.quantile(one, _PACE_QUANTILE)) for one in (reading_s, writing_s))
    return Usage(occupancy, gpus, token_s, iteration_s)


def _expect_readings(
    spans: Sequence[Span], known: Mapping[str, tuple[float, float]], usage: Usage
) -> dict[str, tuple[float, float]]:
    """Return when the prompts of tasks that do not say so should have been read: in the order of their requests."""
    if usage.token_s == inf:
        return {}
    free_s, readings = [-inf] * max(round(usage.gpus), 1), dict[str, tuple[float, float]]()
    for span in sorted(spans, key=attrgetter("start_s")):
        reading = known.get(span.pod_uid)
        if reading is None and span.is_counted:
            continue
        if reading is None:
            begin_s = min(max(span.start_s, free_s[0]), span.end_s)
            reading = (begin_s, min(begin_s + float(usage.find_reading_s(np.array(span.prompt_tokens))), span.end_s))
            readings[span.pod_uid] = reading
        heapreplace(free_s, max(free_s[0], reading[1]))
    return readings


def _find_previous(firsts_s: Array, gpus: int) -> Array:
    """Return when a GPU became free for each prompt: at the first token of that many prompts before."""
    order = np.argsort(firsts_s, kind="stable")
    previous_s = np.full(len(firsts_s), -inf)
    previous_s[order[gpus:]] = firsts_s[order[:-gpus]]
    return previous_s


def _weigh_reader(usage: Usage) -> float:
    """Return the weight of a task whose prompt is read, relative to one that decodes: it has a GPU to itself."""
    if usage.gpus <= 1.0:
        return _READING
    return usage.reading_power * max(usage.occupancy - 1.0, 1.0) / (usage.gpus - 1.0)


def _expect_powers_w(spans: Sequence[Span], readings: Mapping[str, tuple[float, float]], usage: Usage) -> Array:
    """Return the power that each task is expected to draw: only while it decodes if it is known when it was read."""
    if not spans:
        return np.zeros(0)
    read = [readings.get(span.pod_uid) for span in spans]
    prompts = np.array([span.prompt_tokens if one is None else 0.0 for span, one in zip(spans, read, strict=True)])
    starts_s = np.array([span.start_s if one is None else one[1] for span, one in zip(spans, read, strict=True)])
    outputs, ends_s = np.array([span.output_tokens for span in spans]), np.array([span.end_s for span in spans])
    energies_j = np.array(GENERIC.energy) @ energy_features(prompts, outputs, usage.occupancy)
    begun_s, ended_s = count_readers(readings).accumulate_s(np.stack([starts_s, ends_s]), usage.gpus) / usage.gpus
    lengths_s = np.maximum(ends_s - starts_s, MIN_SPAN_S)
    powers_w: Array = np.maximum(energies_j, 1e-3) / np.maximum(
        lengths_s - (ended_s - begun_s), _LEAST_DECODING * lengths_s
    )
    return powers_w
