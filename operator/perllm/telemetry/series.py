"""Parses an answer of Prometheus into series; a malformed series does not affect the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from operator import itemgetter
from typing import Any

from perllm.text import clean_line

MAX_LABEL = 253
MAX_LABELS = 64

MAX_VALUE = 1e21
"""No 64-bit counter and no power in watts exceeds this, so a larger value is an error of the exporter."""

MAX_TIME_S = 1e11
"""The year 5138; a later timestamp is not that of a sample."""

Samples = tuple[tuple[float, float], ...]

_KEEP_LABELS = (
    "the query must end in a range such as [{window}], without sum() or rate(), to keep the labels of the node and the "
    "timestamps of samples"
)


class SeriesError(ValueError):
    """The result of a query is not a list of series with samples; the message says how to write the query."""


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one series.

    Attributes:
        labels: its labels, ``__name__`` included.
        samples: pairs of seconds since the epoch and value, in order of time; all finite.
        fault: why the series cannot be used, in which case it has no samples; empty if it can.
    """

    labels: Mapping[str, str]
    samples: Samples
    fault: str = ""


def read_result(result: object) -> tuple[Series, ...]:
    """Return the series in the result of a query.

    Raises:
        SeriesError: the result is of another type, a vector or a single value.
    """
    if not isinstance(result, list):
        raise SeriesError(f"the result is {_name(result)} instead of a list of series")
    objects = [entry for entry in result if isinstance(entry, dict)]
    if result and not objects:
        raise SeriesError(f"returned a single value without labels; {_KEEP_LABELS}")
    if objects and all("value" in entry and "values" not in entry for entry in objects):
        raise SeriesError(f"returned one value per series instead of samples; {_KEEP_LABELS}")
    return tuple(_read_entry(entry) for entry in result)


def describe_labels(labels: Mapping[str, str]) -> str:
    """Return labels in the notation of Prometheus, without the name of the metric."""
    return "{" + ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "__name__") + "}"


def _read_entry(entry: object) -> Series:
    if not isinstance(entry, dict):
        return Series({}, (), f"it is {_name(entry)} instead of an object")
    metric = entry.get("metric")
    if not isinstance(metric, dict):
        return Series({}, (), "it has no labels")
    labels = {_clean(key): _clean(value) for key, value in list(metric.items())[:MAX_LABELS] if isinstance(value, str)}
    values = entry.get("values")
    if not isinstance(values, list):
        return Series(labels, (), "it has no list of samples")
    try:
        return Series(labels, _read_samples(values))
    except (TypeError, ValueError, OverflowError) as error:
        return Series(labels, (), clean_line(f"its samples are not pairs of time and value: {error}", MAX_LABEL))


def _read_samples(values: Sequence[Any]) -> Samples:
    """Return the finite samples in order of time, one per timestamp; NaN and infinity are left out.

    Raises:
        TypeError, ValueError, OverflowError: one of them is not a sample.
    """
    samples = [(float(time_s), float(value)) for time_s, value in values]
    if not all(0.0 <= time_s <= MAX_TIME_S for time_s, _ in samples):
        raise ValueError("a timestamp is out of range")
    finite = [(time_s, value) for time_s, value in samples if isfinite(value)]
    if any(abs(value) > MAX_VALUE for _, value in finite):
        raise ValueError("a value is out of range")
    if all(before[0] < after[0] for before, after in pairwise(finite)):
        return tuple(finite)
    return tuple(sorted(dict(reversed(finite)).items(), key=itemgetter(0)))


def _clean(label: str) -> str:
    return label if label.isprintable() and len(label) <= MAX_LABEL else clean_line(label, MAX_LABEL)


def _name(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
