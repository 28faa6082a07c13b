"""The status patches that a kubelet writes in the life of a pod."""

from typing import Any

from perllm_lab.nodes.pods import BoundContainer, BoundPod

Object = dict[str, Any]

KILLED = 137


def running(pod: BoundPod, *, admitted: str, started: str) -> Object:
    """Return the patch for a pod whose containers have started. Times as Kubernetes writes them."""
    state = {"running": {"startedAt": started}}
    return _patch(
        pod,
        phase="Running",
        startTime=admitted,
        conditions=_conditions("True", started),
        containerStatuses=[_container(pod, each, state, ready=True) for each in pod.containers],
    )


def terminated(pod: BoundPod, *, admitted: str, started: str, finished: str, exit_code: int, message: str) -> Object:
    """Return the patch for a pod whose containers have all exited; `message` is that of the reporter."""
    state = {
        "exitCode": exit_code,
        "reason": "Error" if exit_code else "Completed",
        "startedAt": started,
        "finishedAt": finished,
    }
    reported = {**state, "message": message} if message else state
    return _patch(
        pod,
        phase="Failed" if exit_code else "Succeeded",
        startTime=admitted,
        conditions=_conditions("False", finished, "PodFailed" if exit_code else "PodCompleted"),
        containerStatuses=[
            _container(pod, each, {"terminated": reported if each.name == pod.reporter else state}, ready=False)
            for each in pod.containers
        ],
    )


def refused(pod: BoundPod, *, now: str, reason: str, message: str) -> Object:
    """Return the patch for a pod that the node refuses."""
    return _patch(pod, phase="Failed", reason=reason, message=message, startTime=now)


def lost(pod: BoundPod, *, now: str) -> Object:
    """Return the patch for a pod whose containers were lost in a restart of the node."""
    state = {"terminated": {"exitCode": KILLED, "reason": "ContainerStatusUnknown", "finishedAt": now}}
    return _patch(
        pod,
        phase="Failed",
        reason="NodeRestarted",
        message="The node restarted while the pod was running; its containers are gone.",
        conditions=_conditions("False", now, "PodFailed"),
        containerStatuses=[_container(pod, each, state, ready=False) for each in pod.containers],
    )


def _patch(pod: BoundPod, **status: object) -> Object:
    # With the uid the API server denies the patch for a later pod of the same name.
    return {"metadata": {"uid": pod.uid}, "status": status}


def _conditions(ready: str, now: str, reason: str = "") -> list[Object]:
    state = {"status": ready, "lastTransitionTime": now, **({"reason": reason} if reason else {})}
    return [
        {"type": "Initialized", "status": "True", "lastTransitionTime": now},
        {"type": "Ready", **state},
        {"type": "ContainersReady", **state},
    ]


def _container(pod: BoundPod, container: BoundContainer, state: Object, *, ready: bool) -> Object:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": f"simulated://{container.image}",
        "containerID": f"simulated://{pod.uid}/{container.name}",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }
