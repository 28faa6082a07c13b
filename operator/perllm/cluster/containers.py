"""The containers of a task's pod: which are the task's own, how far each has come, and why one waits."""

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
"""Reason of a container that kubelet has lost sight of; its exit code is made up."""

USUAL_WAITS = ("", "ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Container:
    """A container and its state. Times are Unix seconds by its node's clock.

    Attributes:
        name: its name.
        is_own: whether the task's template has it; others were injected.
        is_init: whether it has to end before the next one starts.
        is_running: whether it runs.
        is_over: whether it has ended for good.
        exit_code: None unless it has ended and somebody knows how.
        started_s: when it started.
        finished_s: when it ended for good.
        reason: why it ended, in a word.
        said: its termination message.
        wait_reason: why it does not run, in a word.
        wait_message: the same in words.
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

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error of its own."""
        return self.exit_code is not None and self.exit_code != 0


def read_containers(spec: dict[str, Any], status: dict[str, Any], own: Sequence[str]) -> tuple[Container, ...]:
    """Return the containers of a pod: those of its template, the first one first, then injected ones, then init ones.

    Sidecars, which are init containers that run on, never count as over: Kubernetes ends them when the work is done.

    Args:
        spec: the pod's.
        status: the pod's.
        own: names of the template's containers; nothing if unknown, then all are the task's own.
    """
    ends = status.get("phase") in ("Succeeded", "Failed") or as_text(spec.get("restartPolicy")) == "Never"
    states = _read_states(status.get("containerStatuses"))
    helpers = _read_states(status.get("initContainerStatuses"))
    found = [as_text(one.get("name")) for one in as_objects(spec.get("containers"))]
    first = [name for name in own if name in found]
    injected = [name for name in found if name not in first]
    inits = [_read_init(one, helpers, ends=ends) for one in as_objects(spec.get("initContainers"))]
    return (
        *(_read(name, states, is_own=True, ends=ends) for name in first),
        *(_read(name, states, is_own=not first, ends=ends) for name in injected),
        *inits,
    )


def read_own_names(annotations: dict[str, Any]) -> list[str]:
    """Return the names of the template's containers that were noted on the pod."""
    return as_text(annotations.get(names.CONTAINERS_ANNOTATION)).split(",")


def find_wait(containers: Sequence[Container]) -> tuple[str, str]:
    """Return reason and words of the container that holds up the others, the init containers first."""
    waits = [one for one in sorted(containers, key=lambda one: not one.is_init) if one.wait_reason]
    unusual = [one for one in waits if one.wait_reason not in USUAL_WAITS]
    return next(((one.wait_reason, one.wait_message) for one in (*unusual, *waits)), ("", ""))


def _read_states(statuses: object) -> dict[str, dict[str, Any]]:
    """Return the states by name; statuses come in an order of their own."""
    return {as_text(one.get("name")): as_object(one.get("state")) for one in as_objects(statuses)}


def _read_init(item: dict[str, Any], states: dict[str, dict[str, Any]], *, ends: bool) -> Container:
    found = _read(as_text(item.get("name")), states, is_own=True, is_init=True, ends=ends)
    is_sidecar = item.get("restartPolicy") == "Always"
    return replace(found, is_over=False, exit_code=None, finished_s=None) if is_sidecar else found


def _read(
    name: str, states: dict[str, dict[str, Any]], *, is_own: bool, ends: bool, is_init: bool = False
) -> Container:
    state = states.get(name, {})
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
    )


def _read_exit_code(ended: dict[str, Any]) -> int | None:
    code = ended.get("exitCode")
    is_known = type(code) is int and abs(code) < MAX_EXIT_CODE and ended.get("reason") != STATUS_UNKNOWN
    return code if is_known else None
