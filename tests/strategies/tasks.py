"""Tasks as careless, confused and hostile users write them."""

from typing import Any

from hypothesis import strategies as st

from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.requests import Request
from strategies.values import (
    DEPTHS,
    JSON,
    LONG_TEXTS,
    NESTED,
    NOT_A_MAP,
    NOT_A_TEXT,
    NUMBERS,
    ODD_TEXTS,
    ODD_TIMES,
    TEXTS,
    Object,
    Oddities,
    nest,
    place,
)

SPEC = ("spec", "template", "spec")
METADATA = ("spec", "template", "metadata")
CONTAINER = (*SPEC, "containers", 0)
NEARLY_TOO_LARGE = 1_000_000

ODD_QUANTITIES = st.one_of(
    st.sampled_from(["1.5", "-1", "0", "64", "1e30", "banana", "", "1Ti", "0.5", "1e-50", "+1", "\uff11"]), JSON
)
ODD_DURATIONS = st.one_of(st.sampled_from(["1ns", "24h", "24h1ns", "0s", "-1s", "1d", "PT30S", "1h 30m", "90"]), JSON)


def healthy_task(name: str = "task", namespace: str = "default") -> Object:
    """Return a small task with nothing odd about it."""
    return task_manifest(Request(name, "chat", 0.0, 100, 30, 1000, 60.0), namespace=namespace)


def odd_tasks() -> Oddities:
    """Return what may be wrong with a task."""
    return {
        "labels of any type": _at((*METADATA, "labels"), NOT_A_MAP),
        "annotations of any type": _at((*METADATA, "annotations"), NOT_A_MAP),
        "a label's value of any type": _at((*METADATA, "labels", "app"), NOT_A_TEXT),
        "an annotation's value of any type": _at((*METADATA, "annotations", "app"), NOT_A_TEXT),
        "an odd label": _entries("labels", ODD_TEXTS),
        "an odd annotation": _entries("annotations", ODD_TEXTS),
        "a long label": _at((*METADATA, "labels", "prompt"), LONG_TEXTS),
        "a long annotation": _at((*METADATA, "annotations", "prompt"), LONG_TEXTS),
        "deep in metadata": _at((*METADATA, "annotations", "deep"), NESTED),
        "deep in the pod's spec": _at((*SPEC, "affinity"), NESTED),
        "deep in a container": _at((*CONTAINER, "deep"), NESTED),
        "metadata of any type": _at(METADATA, JSON),
        "odd metadata": _odd_metadata(),
        "odd containers": _at((*SPEC, "containers"), _odd_containers()),
        "odd init containers": _at((*SPEC, "initContainers"), _odd_containers()),
        "a node's name": _at((*SPEC, "nodeName"), st.one_of(st.sampled_from(["t4-0", "no-such", ""]), JSON)),
        "an unknown field": st.sampled_from([SPEC, CONTAINER, METADATA]).flatmap(_unknown_field),
        "a known field of any type": st.sampled_from(_KNOWN_FIELDS).flatmap(lambda field: _at((*SPEC, field), JSON)),
        "nearly too large": st.sampled_from([METADATA, CONTAINER]).map(_nearly_too_large),
        "odd text in a command": _at((*CONTAINER, "command"), st.lists(ODD_TEXTS, min_size=1, max_size=3)),
        "odd text in the environment": _at((*CONTAINER, "env"), _odd_environment()),
        "an odd image": _at((*CONTAINER, "image"), st.one_of(ODD_TEXTS, LONG_TEXTS, NOT_A_TEXT)),
        "an odd number of GPUs": _at((*CONTAINER, "resources", "limits", "nvidia.com/gpu"), ODD_QUANTITIES),
        "an odd request": _at((*CONTAINER, "resources", "requests", "memory"), ODD_QUANTITIES),
        "nobody fits": st.sampled_from(_UNSATISFIABLE).map(lambda change: place(healthy_task(), *change)),
        "an odd deadline": _at(("spec", "deadline"), ODD_DURATIONS),
        "an odd time to live": _at(("spec", "ttlAfterFinished"), ODD_DURATIONS),
        "an odd payload": _at(("spec", "inputBytes"), ODD_QUANTITIES),
        "an odd number": st.sampled_from(["promptTokens", "outputTokens", "priority", "retries"]).flatmap(
            lambda field: _at(("spec", field), NUMBERS)
        ),
        "an odd model": _at(("spec", "model"), st.one_of(ODD_TEXTS, LONG_TEXTS, st.just("a" * 253), NOT_A_TEXT)),
    }


_KNOWN_FIELDS = (
    "activeDeadlineSeconds",
    "affinity",
    "dnsConfig",
    "hostNetwork",
    "imagePullSecrets",
    "nodeSelector",
    "overhead",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
)

_UNSATISFIABLE: tuple[tuple[tuple[str | int, ...], Any], ...] = (
    ((*SPEC, "nodeSelector"), {"no-such": "label"}),
    ((*SPEC, "schedulingGates"), [{"name": "example.com/wait"}]),
    ((*SPEC, "priorityClassName"), "no-such"),
    ((*SPEC, "serviceAccountName"), "no-such"),
    ((*SPEC, "volumes"), [{"name": "data", "persistentVolumeClaim": {"claimName": "no-such"}}]),
    ((*CONTAINER, "resources", "limits", "nvidia.com/gpu"), "64"),
    ((*CONTAINER, "resources", "requests", "memory"), "100Ti"),
)


def _at(path: tuple[str | int, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return values.map(lambda value: place(healthy_task(), path, value))


def _entries(field: str, keys: st.SearchStrategy[str]) -> st.SearchStrategy[Object]:
    return st.builds(lambda key, value: place(healthy_task(), (*METADATA, field, key), value), keys, ODD_TEXTS)


def _unknown_field(path: tuple[str | int, ...]) -> st.SearchStrategy[Object]:
    fields = st.one_of(st.sampled_from(["comand", "imagePullpolicy", "restartpolicy", "gpu"]), TEXTS)
    return st.builds(lambda field, value: place(healthy_task(), (*path, field), value), fields, JSON)


def _odd_metadata() -> st.SearchStrategy[Object]:
    changes = st.sampled_from(
        [
            ("name", "other"),
            ("namespace", "kube-system"),
            ("generateName", "x-"),
            ("finalizers", ["example.com/keep"]),
            ("deletionTimestamp", "2020-01-01T00:00:00Z"),
            ("uid", "mine"),
            ("resourceVersion", "1"),
            ("ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}]),
        ]
    )
    return changes.map(lambda change: place(healthy_task(), (*METADATA, change[0]), change[1])) | st.builds(
        lambda value: place(healthy_task(), (*METADATA, "creationTimestamp"), value), ODD_TIMES
    )


def _odd_containers() -> st.SearchStrategy[Any]:
    whole = {"name": "llm", "image": "perllm-lab/llm"}
    return st.one_of(
        JSON,
        st.lists(JSON, min_size=1, max_size=3),
        st.sampled_from([[], [None], ["text"], [{}], [{"name": "llm"}], [{"image": "x"}], [whole, whole]]),
        st.sampled_from([64, 65, 300]).map(lambda count: [{**whole, "name": f"c-{n}"} for n in range(count)]),
        st.builds(
            lambda key, value: [{**whole, key: value}], st.sampled_from(["name", "image", "args", "ports"]), JSON
        ),
        st.sampled_from(DEPTHS).map(lambda depth: [nest(depth, as_list=False)]),
    )


def _odd_environment() -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({"name": ODD_TEXTS, "value": ODD_TEXTS | LONG_TEXTS}), min_size=1, max_size=3)


def _nearly_too_large(path: tuple[str | int, ...]) -> Object:
    return place(healthy_task(), (*path, "annotations"), {"large": "x" * NEARLY_TOO_LARGE})
