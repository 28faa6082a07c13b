"""Finds arrivals: those of a trace file, or synthetic ones by name."""

from dataclasses import replace
from pathlib import Path

from numpy.random import Generator

from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.capacity import scale_arrivals
from perllm_lab.workload.synthetic import LAWS, generate_arrivals
from perllm_lab.workload.trace import TraceError, read_trace

SYNTHETIC = "synthetic:"
MIXED = "+"
DEFAULT_COUNT = 19_366
"""The length of the Azure conversation trace."""


def load_arrivals(spec: str, count: int | None, rng: Generator) -> list[Arrival]:
    """Returns `count` arrivals of a trace file, of a synthetic trace: `synthetic:NAME`, or of several joined by `+`.

    A file yields at most as many as it has; without `count` it yields all of them, a synthetic trace 19,366. Of several
    each yields its part of `count`, at the same mean rate, as the requests of a service with the trace's name.

    Raises:
        TraceError: there is no such trace, or the file is not one.
    """
    specs = spec.split(MIXED)
    if len(specs) == 1:
        return _load_one(spec, count, rng)
    share = None if count is None else count // len(specs)
    mixed = [
        replace(arrival, service=Path(one).stem.removeprefix(SYNTHETIC))
        for one in specs
        for arrival in scale_arrivals(_load_one(one, share, rng), 1.0)
    ]
    return sorted(mixed, key=lambda arrival: arrival.at_s)


def _load_one(spec: str, count: int | None, rng: Generator) -> list[Arrival]:
    if not spec.startswith(SYNTHETIC):
        return read_trace(Path(spec), limit=count)
    name = spec.removeprefix(SYNTHETIC)
    if name not in LAWS:
        raise TraceError(f"no synthetic trace '{name}'; known: {', '.join(SYNTHETIC + each for each in sorted(LAWS))}")
    return generate_arrivals(DEFAULT_COUNT if count is None else count, rng, LAWS[name])
