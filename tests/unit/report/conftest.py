"""Runs made by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from perllm_lab.simulator.result import Fate, Floats, RunResult, TaskTable

Builder = Callable[..., RunResult]


def build_run(
    fates: Sequence[Fate],
    *,
    policy: str = "a",
    load: float = 0.9,
    seed: int = 0,
    at_s: Sequence[float] | None = None,
    window_s: tuple[float, float] | None = None,
    node: Sequence[int] | None = None,
    latency_s: Sequence[float] | None = None,
    output_tokens: Sequence[float] | None = None,
    transmission_j: float = 0.0,
    node_energy_j: Sequence[float] = (300.0, 100.0),
    node_idle_j: Sequence[float] = (50.0, 80.0),
    decision_s: Sequence[float] = (0.001, 0.003),
    forecast: dict[str, Sequence[float]] | None = None,
) -> RunResult:
    """One task a second on an edge node 0 and a cloud node 1; prompt and output are 10 tokens, latency is 2 s."""
    count = len(fates)
    arrival = np.arange(count, dtype=np.float64) if at_s is None else np.asarray(at_s, dtype=np.float64)
    fate = np.asarray(fates, dtype=np.int8)
    completed = np.isin(fate, (Fate.IN_TIME, Fate.LATE))
    places = np.zeros(count, dtype=np.int64) if node is None else np.asarray(node, dtype=np.int64)
    taken = np.full(count, 2.0) if latency_s is None else np.asarray(latency_s, dtype=np.float64)
    tasks = TaskTable(
        at_s=arrival,
        deadline_s=np.full(count, 5.0),
        prompt_tokens=np.full(count, 10.0),
        output_tokens=np.full(count, 10.0) if output_tokens is None else np.asarray(output_tokens, dtype=np.float64),
        fate=fate,
        node=places,
        decided_s=_where(places >= 0, arrival),
        bound_s=_where(places >= 0, arrival),
        transferred_s=_where(places >= 0, arrival + 0.5),
        finished_s=_where(completed, arrival + taken),
        energy_j=_where(places >= 0, np.full(count, 100.0)),
        transmission_j=_where(places >= 0, np.full(count, transmission_j)),
        runs=np.ones(count, dtype=np.int64),
        explored=np.zeros(count, dtype=np.bool_),
        forecast={name: np.asarray(values, dtype=np.float64) for name, values in (forecast or {}).items()},
    )
    return RunResult(
        scenario="two nodes",
        policy=policy,
        load=load,
        seed=seed,
        nodes=("near", "far"),
        tiers=("edge", "cloud"),
        gpu_types=("T4", "H100"),
        tasks=tasks,
        window_s=(float(arrival[0]), float(arrival[-1])) if window_s is None else window_s,
        node_energy_j=np.asarray(node_energy_j, dtype=np.float64),
        node_idle_j=np.asarray(node_idle_j, dtype=np.float64),
        decision_s=np.asarray(decision_s, dtype=np.float64),
        wall_s=1.0,
    )


def _where(there: np.ndarray[tuple[int], np.dtype[np.bool_]], values: Floats) -> Floats:
    return np.where(there, values, np.nan)


@pytest.fixture(name="build_run")
def _build_run() -> Builder:
    return build_run
