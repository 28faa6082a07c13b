"""Checks PerLLM's own pods, and the Lease of replicas."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perllm.cluster.client import Object
from perllm.cluster.times import parse_time_s
from perllm.doctor.finding import Finding, fail, ok, warn

PODS = "pods of PerLLM"
LEASE = "lease"

OPERATOR, SCHEDULER = "operator", "scheduler"
CONTAINERS: Mapping[str, tuple[str, ...]] = {"active": (OPERATOR, SCHEDULER), "shadow": (OPERATOR,)}
"""Names of the containers of PerLLM's own pods, by the mode of its configuration."""

MANY_RESTARTS = 3
SILENT_LEASE_S = 60.0


def find_own(items: Sequence[Object], mode: str) -> list[Object]:
    """Return the pods of PerLLM: those with the containers of its mode."""
    wanted = set(CONTAINERS[mode])
    return [item for item in items if wanted <= {one["name"] for one in item["spec"]["containers"]}]


def check_pods(items: Sequence[Object], namespace: str, mode: str = "active") -> Iterator[Finding]:
    """Check the pods in the namespace that PerLLM is installed in."""
    own = [item for item in find_own(items, mode) if "deletionTimestamp" not in item["metadata"]]
    if not own:
        yield fail(PODS, f"none in namespace {namespace}", "helm install perllm, or pass --namespace NAME")
        return
    for item in own:
        yield from _check_pod(item, CONTAINERS[mode])


def check_lease(lease: Object | None, name: str, now_s: float) -> Finding:
    """Check the Lease by which replicas elect a leader; None if there is none."""
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity")
    advice = "check the log of the container scheduler: can its account get and update the lease?"
    if not holder:
        return fail(LEASE, f"no pod holds {name}, so no replica is active", advice)
    age_s = now_s - (parse_time_s(spec.get("renewTime")) or 0.0)
    if age_s > SILENT_LEASE_S:
        return fail(LEASE, f"{holder} holds {name}, but has not renewed it for {age_s:.0f} s", advice)
    return ok(LEASE, f"{holder} holds {name}")


def _check_pod(item: Object, containers: Sequence[str]) -> Iterator[Finding]:
    name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
    kubectl = f"kubectl -n {namespace}"
    statuses = {one["name"]: one for one in item.get("status", {}).get("containerStatuses") or ()}
    unready = [one for one in containers if not statuses.get(one, {}).get("ready")]
    for container in unready:
        message = f"{container} of {name} is not ready{_explain(item, statuses.get(container, {}))}"
        yield fail(PODS, message, f"{kubectl} logs {name} -c {container}; {kubectl} describe pod {name}")
    if not unready:
        yield ok(PODS, f"{' and '.join(containers)} of {name} {'are' if len(containers) > 1 else 'is'} ready")
    for container, status in statuses.items():
        if status.get("restartCount", 0) >= MANY_RESTARTS:
            last = _state(status.get("lastState"))
            message = f"{container} of {name} was restarted {status['restartCount']} times{last}"
            yield warn(PODS, message, f"{kubectl} logs {name} -c {container} --previous")


def _explain(item: Object, status: Mapping[str, Any]) -> str:
    """Return why a container is not ready, as far as the pod's status says."""
    if status:
        return _state(status.get("state"))
    conditions = item.get("status", {}).get("conditions") or ()
    return next((f": {one.get('message')}" for one in conditions if one["status"] == "False"), "")


def _state(state: Mapping[str, Any] | None) -> str:
    detail = (state or {}).get("waiting") or (state or {}).get("terminated") or {}
    words = [str(detail[key]) for key in ("reason", "message") if detail.get(key)]
    return f": {', '.join(words)}" if words else ""
