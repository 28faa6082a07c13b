"""Pods with our labels that our tasks own, and that we have not made."""

import json

from hypothesis import strategies as st

from perllm.api import names
from strategies.values import JSON, LONG_TEXTS, NOT_A_TEXT, NUMBERS, ODD_TEXTS, Object, Oddities

DECISION_FIELDS = ("node", "model", "policy", "context", "predictedLatency", "outputTokens", "version")


def odd_pods() -> Oddities:
    """Return what may be wrong with a pod; every value is a pod without name and owner."""
    return {
        "an odd attempt": st.sampled_from(["9" * 26, "9" * 63, "0", "-1", "007", "1e3", "x", ""]).map(_attempt),
        "a forged decision": (_odd_record() | JSON).map(json.dumps).map(_decision),
        "a decision that is not JSON": (ODD_TEXTS | LONG_TEXTS).map(_decision),
        "an odd deadline": ODD_TEXTS.map(lambda text: _pod(annotations={names.DEADLINE_ANNOTATION: text})),
        "bound to a node by somebody": st.sampled_from(["t4-0", "no-such"]).map(lambda node: _pod(nodeName=node)),
        "for another scheduler": st.just(_pod(schedulerName="nobody")),
        "another task's labels": st.just(_pod(labels={names.TASK_LABEL: "other", names.MODEL_LABEL: "other"})),
        "deleted under a finalizer": st.just(_pod(finalizers=["example.com/keep"])),
        "several containers": st.integers(2, 9).map(
            lambda count: _pod(containers=[_container(n) for n in range(count)])
        ),
        "an annotation of any type": NOT_A_TEXT.map(lambda value: _pod(annotations={names.DECISION_ANNOTATION: value})),
    }


def _attempt(text: str) -> Object:
    return _pod(labels={names.ATTEMPT_LABEL: text})


def _decision(text: str) -> Object:
    return _pod(annotations={names.DECISION_ANNOTATION: text})


def _odd_record() -> st.SearchStrategy[Object]:
    return st.dictionaries(st.sampled_from(DECISION_FIELDS), NUMBERS | ODD_TEXTS | JSON, min_size=1)


def _pod(
    labels: Object | None = None, annotations: Object | None = None, finalizers: list[str] | None = None, **spec: object
) -> Object:
    metadata = {"labels": labels or {}, "annotations": annotations or {}, "finalizers": finalizers or []}
    whole = {"schedulerName": names.SCHEDULER_NAME, "restartPolicy": "Never", "containers": [_container(0)], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}


def _container(number: int) -> Object:
    return {"name": f"c-{number}", "image": "perllm-lab/llm"}
