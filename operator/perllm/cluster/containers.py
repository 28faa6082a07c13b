"""The containers of a task's pod: which ones the task's template defines, their state, and why one is waiting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from perllm.api import names
from perllm.cluster.shapes import as_object, as_objects, as_text
from perllm.cluster.times import parse_time_s
from perllm.text import clean_line

MAX_REASON = 128
MAX_EXIT_CODE = 2**31

STATUS_UNKNOWN = "ContainerStatusUnknown"
"""Reason of a container whose state kubelet has lost; its exit code is meaningless."""

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

USUAL_WAITS = ("", "ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Container:
    """A container and its state. Times are Unix seconds by its node's clock.

    Attributes:
        name: its name.
        is_own: whether it is in the task's template; others were injected.
        is_init: whether it has to end before the next one starts.
        is_running: whether it is running.
        is_over: whether it has ended and will not be restarted.
        exit_code: None unless it has ended and its exit code is known.
        started_s: when it started.
        finished_s: when it ended, if it will not be restarted.
        reason: why it ended, as one word.
        said: its termination message.
        wait_reason: why it is not running, as one word.
        wait_message: why it is not running, as a sentence.
        was_restarted: whether it ran more than once.
    """

    name: str
    is_own: bool
    is_init: bool
    is_running: bool
    is_over: bool
    exit_code: int | None
    started_s: float | None
    finished_s: float | None
    reason: str
    said: str
    wait_reason: str
    wait_message: str
    was_restarted: bool

    @property
    def has_failed(self) -> bool:
        """Whether it ended with a non-zero exit code."""
        return self.exit_code is not None and self.exit_code != 0


def read_containers(spec: dict[str, Any], status: dict[str, Any], own: Sequence[str]) -> tuple[Container, ...]:
    """Return the containers of a pod: those of its template in their order, then injected ones, then init containers.

    Sidecars, which are init containers that keep running, never count as over: Kubernetes stops them after the others.

    Args:
        spec: spec of the pod.
        status: status of the pod.
        own: names of the template's containers. If none of them is known, all containers count as the task's own.
    """
    ends = status.get("phase") in ("Succeeded", "Failed") or as_text(spec.get("restartPolicy")) == "Never"
    statuses = _read_statuses(status.get("containerStatuses"))
    helpers = _read_statuses(status.get("initContainerStatuses"))
    found = [as_text(one.get("name")) for one in as_objects(spec.get("containers"))]
    first = [name for name in own if name in found]
    injected = [name for name in found if name not in first]
    inits = [_read_init(one, helpers, ends=ends) for one in as_objects(spec.get("initContainers"))]
    return (
        *(_read(name, statuses, is_own=True, ends=ends) for name in first),
        *(_read(name, statuses, is_own=not first, ends=ends) for name in injected),
        *inits,
    )


def read_own_names(annotations: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """Return the names of the template's containers, the one that does the work first.

    An annotation records those of a task's pod. Of any other pod they are all its containers, in their order, unless
    another annotation names one: a service mesh that injects its proxy as the first container writes it.
    """
    recorded, chosen = (as_text(annotations.get(key)) for key in (names.CONTAINERS_ANNOTATION, DEFAULT_CONTAINER))
    if recorded:
        return recorded.split(",")
    found = [as_text(one.get("name")) for one in as_objects(spec.get("containers"))]
    return sorted(found, key=lambda name: name != chosen)


def find_wait(containers: Sequence[Container]) -> tuple[str, str]:
    """Return reason and message of the container that keeps the pod from running; init containers come first."""
    waits = [one for one in sorted(containers, key=lambda one: not one.is_init) if one.wait_reason]
    unusual = [one for one in waits if one.wait_reason not in USUAL_WAITS]
    return next(((one.wait_reason, one.wait_message) for one in (*unusual, *waits)), ("", ""))


def _read_statuses(statuses: object) -> dict[str, dict[str, Any]]:
    """Return the statuses by name; their order is not that of the spec."""
    return {as_text(one.get("name")): one for one in as_objects(statuses)}


def _read_init(item: dict[str, Any], statuses: dict[str, dict[str, Any]], *, ends: bool) -> Container:
    found = _read(as_text(item.get("name")), statuses, is_own=True, is_init=True, ends=ends)
    is_sidecar = item.get("restartPolicy") == "Always"
    return replace(found, is_over=False, exit_code=None, finished_s=None) if is_sidecar else found


def _read(
    name: str, statuses: dict[str, dict[str, Any]], *, is_own: bool, ends: bool, is_init: bool = False
) -> Container:
    status = statuses.get(name, {})
    state = as_object(status.get("state"))
    ended, running, waiting = (as_object(state.get(kind)) for kind in ("terminated", "running", "waiting"))
    exit_code = _read_exit_code(ended)
    is_over = bool(ended) and (ends or exit_code == 0)
    return Container(
        name=clean_line(name, MAX_REASON),
        is_own=is_own,
        is_init=is_init,
        is_running=bool(running),
        is_over=is_over,
        exit_code=exit_code if is_over else None,
        started_s=parse_time_s(ended.get("startedAt") or running.get("startedAt")),
        finished_s=parse_time_s(ended.get("finishedAt")) if is_over else None,
        reason=clean_line(as_text(ended.get("reason")), MAX_REASON),
        said=as_text(ended.get("message")),
        wait_reason=clean_line(as_text(waiting.get("reason")), MAX_REASON),
        wait_message=clean_line(as_text(waiting.get("message"))),
        was_restarted=status.get("restartCount") not in (None, 0),
    )


def _read_exit_code(ended: dict[str, Any]) -> int | None:
    code = ended.get("exitCode")
    is_known = type(code) is int and abs(code) < MAX_EXIT_CODE and ended.get("reason") != STATUS_UNKNOWN
    return code if is_known else None
