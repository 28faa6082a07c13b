"""Pods of other schedulers as the API server has them."""

from typing import Any

from perllm.cluster.times import format_time


def pod_object(
    name: str = "p",
    *,
    node: str | None = None,
    created_s: float = 1000.0,
    started_s: float | None = None,
    finished_s: float | None = None,
    annotations: dict[str, str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """Return a pod that waits, is bound, runs or has succeeded, as its times say."""
    said = {"perllm.io/model": "m", "perllm.io/deadline": "60s", "perllm.io/prompt-tokens": "1000"}
    state: dict[str, Any] = {}
    if finished_s is not None:
        times = {"startedAt": format_time(started_s or 0.0), "finishedAt": format_time(finished_s)}
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "message": REPORT, **times}}
    elif started_s is not None:
        state = {"running": {"startedAt": format_time(started_s)}}
    phase = "Succeeded" if finished_s is not None else "Running" if started_s is not None else "Pending"
    return {
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "creationTimestamp": format_time(created_s),
            "annotations": said if annotations is None else annotations,
            **metadata,
        },
        "spec": {
            "schedulerName": "default-scheduler",
            "restartPolicy": "Never",
            "containers": [{"name": "llm", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
            **({"nodeName": node} if node else {}),
        },
        "status": {"phase": phase, "containerStatuses": [{"name": "llm", "state": state}] if state else []},
    }


REPORT = '{"outputTokens": 100, "inferenceSeconds": 6.0}'
