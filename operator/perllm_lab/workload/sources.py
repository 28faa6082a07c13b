"""Finds arrivals: those of a trace file, or synthetic ones by name."""

from pathlib import Path

from numpy.random import Generator

from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.synthetic import LAWS, generate_arrivals
from perllm_lab.workload.trace import TraceError, read_trace

SYNTHETIC = "synthetic:"
DEFAULT_COUNT = 19_366
"""The length of the Azure conversation trace."""


def load_arrivals(spec: str, count: int | None, rng: Generator) -> list[Arrival]:
    """Returns `count` arrivals of a trace file, or of a synthetic trace: `synthetic:NAME`.

    A file yields at most as many as it has; without `count` it yields all of them, a synthetic trace 19,366.

    Raises:
        TraceError: there is no such trace, or the file is not one.
    """
    if not spec.startswith(SYNTHETIC):
        return read_trace(Path(spec), limit=count)
    name = spec.removeprefix(SYNTHETIC)
    if name not in LAWS:
        raise TraceError(f"no synthetic trace '{name}'; known: {', '.join(SYNTHETIC + each for each in sorted(LAWS))}")
    return generate_arrivals(DEFAULT_COUNT if count is None else count, rng, LAWS[name])
