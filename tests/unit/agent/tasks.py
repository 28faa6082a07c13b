"""Served tasks as the API server holds them."""

from typing import Any

from perllm.agent.assignments import Assignment, read_assignment

KEY = "team/t"
PATH = "/apis/perllm.io/v1alpha1/namespaces/team/llminferencetasks/t"
CREATED = "2026-01-01T00:00:00Z"
CREATED_S = 1_767_225_600.0


def task(*, name: str = "t", attempt: int = 1, model: str = "m", **changes: Any) -> dict[str, Any]:
    """A task that is placed on the node; changes go into the spec, or the status if it has such a field."""
    spec = {"model": model, "deadline": "60s", "prompt": "Hi", "maxTokens": 50}
    status = {"phase": "Running", "nodeName": "n", "runsAs": "request", "attempts": attempt}
    for key, value in changes.items():
        (status if key in ("phase", "runsAs", "run", "receivedTime") else spec)[key] = value
    return {
        "metadata": {"namespace": "team", "name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED},
        "spec": {key: value for key, value in spec.items() if value is not None},
        "status": status,
    }


def assignment(**changes: Any) -> Assignment:
    read = read_assignment(task(**changes))
    assert read is not None
    return read
