"""Annotated pods for a stage: their template, and the events that are posted about them."""

from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.workload.manifests import pod_manifest
from perllm_lab.workload.requests import Request


def build_template(stage: Stage, *, output_tokens: int = 60, policy: str = "Never", **annotations: str) -> Object:
    """Return a pod template; the annotations are those of PerLLM without the prefix, with _ for -."""
    request = Request("p", stage.lab.scenario.model, 0.0, 200, output_tokens, 1000, 60.0)
    pod = pod_manifest(request, namespace=stage.namespace)
    said = {f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "metadata": {
            "labels": {"app": "llm"},
            "annotations": {**pod["metadata"]["annotations"], names.MODEL_ANNOTATION: stage.lab.scenario.model, **said},
        },
        "spec": {**pod["spec"], "schedulerName": names.SCHEDULER_NAME, "restartPolicy": policy},
    }


async def wait_event(stage: Stage, prefix: str, reason: str, words: str = "", *, timeout_s: float = 60.0) -> str:
    """Wait until a pod whose name begins so has an event of this reason with these words; return the latest note."""
    notes: list[str] = []

    async def is_there() -> bool:
        found = await stage.events(reason)
        about = [one for name, events in found.items() if name.startswith(prefix) for one in events]
        notes[:] = [one["note"] for one in about if one["regarding"]["kind"] == "Pod"]
        return any(words in note for note in notes)

    await wait_until(is_there, timeout_s=timeout_s, describe=lambda: f"{prefix}: {reason}: {notes}")
    return next(note for note in reversed(notes) if words in note)
