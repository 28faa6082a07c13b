"""Tasks and profiles as the API server has them."""

from typing import Any

from perllm.cluster.client import Object
from perllm.cluster.times import format_time

CREATED_S = 1_000_000.0

DECISION = {
    "policy": "cs-ucb",
    "waited": 0.1,
    "predictedLatency": 2.0,
    "predictedLatencyLow": 1.0,
    "predictedLatencyHigh": 4.0,
    "hitChance": 0.98,
    "predictedEnergy": 300.0,
    "expectedOutputTokens": 100.0,
    "candidates": 2,
}


def make_task(name: str = "hello", *, spec: dict[str, Any] | None = None, **status: Any) -> Object:
    """A served task that was created at `CREATED_S`."""
    return {
        "metadata": {"namespace": "team", "name": name, "creationTimestamp": format_time(CREATED_S)},
        "spec": {"model": "chat", "deadline": "10s", "prompt": "?"} | (spec or {}),
        "status": status,
    }


def make_placed(name: str = "hello", *, decision: dict[str, Any] | None = None, **status: Any) -> Object:
    """A task that runs on t4-1."""
    place = {"nodeName": "t4-1", "tier": "edge", "gpuType": "T4", "runsAs": "request", "attempts": 1}
    return make_task(name, **{"phase": "Running", **place, "decision": DECISION | (decision or {}), **status})


def make_done(name: str = "hello", *, latency_s: float = 3.0, energy_j: float | None = 250.0, **status: Any) -> Object:
    """A task that has succeeded."""
    energy = (
        {"energyQuality": "missing"} if energy_j is None else {"energyJoules": energy_j, "energyQuality": "measured"}
    )
    return make_placed(
        name,
        **{
            "phase": "Succeeded",
            "completionTime": format_time(CREATED_S + latency_s),
            "observed": {"latency": latency_s, "tokens": 90, **energy},
            "deadlineMet": latency_s <= 10.0,
            **status,
        },
    )


def make_condition(kind: str, value: str, reason: str, message: str) -> dict[str, str]:
    """A condition since the creation of its task."""
    time = format_time(CREATED_S)
    return {"type": kind, "status": value, "lastTransitionTime": time, "reason": reason, "message": message}


def make_profile(name: str, **status: Any) -> Object:
    """The profile of a node."""
    return {"metadata": {"name": name}, "status": {"tier": "edge", "gpuType": "T4", **status}}
