"""Finds arrivals: those of a trace file, or synthetic ones by name."""

from dataclasses import replace
from hashlib import sha256
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
    each yields its part of `count`, but no more than the shortest one has, at the same mean rate over the same time, as
    the requests of a service with the trace's name.

    Raises:
        TraceError: there is no such trace, or the file is not one.
    """
    specs = _split(spec)
    if len(specs) == 1:
        return _load_one(spec, count, rng)
    share = None if count is None else count // len(specs)
    traces = [_load_one(one, share, rng) for one in specs]
    least = min(map(len, traces))
    mixed = [
        replace(arrival, service=_name_service(one))
        for one, trace in zip(specs, traces, strict=True)
        for arrival in scale_arrivals(trace[:least], 1.0)
    ]
    return sorted(mixed, key=lambda arrival: arrival.at_s)


def identify_arrivals(spec: str) -> list[str]:
    """Returns what the arrivals of `load_arrivals` depend on, apart from count and seed: of a file its content.

    Raises:
        OSError: a file cannot be read.
    """
    specs = _split(spec)
    named = [f"{_name_service(one)} " if len(specs) > 1 else "" for one in specs]
    return [name + _identify_one(one) for name, one in zip(named, specs, strict=True)]


def _split(spec: str) -> list[str]:
    """Returns the traces that a spec joins; a file may have the sign that joins in its own name."""
    return [spec] if Path(spec).is_file() else spec.split(MIXED)


def _name_service(spec: str) -> str:
    return Path(spec).stem.removeprefix(SYNTHETIC)


def _identify_one(spec: str) -> str:
    return spec if spec.startswith(SYNTHETIC) else sha256(Path(spec).read_bytes()).hexdigest()


def _load_one(spec: str, count: int | None, rng: Generator) -> list[Arrival]:
    if not spec.startswith(SYNTHETIC):
        return read_trace(Path(spec), limit=count)
    name = spec.removeprefix(SYNTHETIC)
    if name not in LAWS:
        raise TraceError(f"no synthetic trace '{name}'; known: {', '.join(SYNTHETIC + each for each in sorted(LAWS))}")
    return generate_arrivals(DEFAULT_COUNT if count is None else count, rng, LAWS[name])
