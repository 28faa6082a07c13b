"""An operator in shadow mode next to the default kube-scheduler, checked against the API server's audit log."""

import asyncio
from collections.abc import Iterator

import pytest

from e2e.audit import AuditLog, read_all, record_writes_of
from e2e.stage import Stage, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.workload.manifests import pod_manifest
from perllm_lab.workload.requests import Request

PODS = 30


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditLog]:
    log = AuditLog(tmp_path_factory.mktemp("shadow") / "audit", record_writes_of(OPERATOR_USER))
    yield log
    log.close()


@pytest.fixture(scope="module")
def lab_settings(audit_log: AuditLog) -> LabSettings:
    return LabSettings("modern", 3.0, operator_config={"mode": "shadow"}, flags={"kube-apiserver": audit_log.flags})


async def test_pods_of_another_scheduler_are_compared_and_nothing_but_profiles_is_written(
    lab: Lab, stage: Stage, audit_log: AuditLog
) -> None:
    for number in range(PODS):
        await lab.client.post(stage.pods_path, annotated_pod(lab, stage, number))
        await asyncio.sleep(0.2)

    async def are_compared() -> bool:
        return await stage.metric("perllm_compared_tasks", unit="deadlines") == PODS

    await wait_until(are_compared, timeout_s=90)
    await stage.wait_learned(PODS, timeout_s=20)
    low, total, high = [await stage.metric("perllm_saved_joules", bound=bound) for bound in ("low", "total", "high")]
    assert low < total < high
    lines = [line for line in stage.read_log() if line.get("event") in ("shadow_decision", "shadow_ended")]
    assert sorted(line["event"] for line in lines) == ["shadow_decision"] * PODS + ["shadow_ended"] * PODS
    assert await stage.metric("perllm_shadowed_pods_total") == PODS

    await lab.operator.stop()
    made = {(change.verb, change.kind) for change in read_all(audit_log) if change.user == OPERATOR_USER}
    assert made == {("create", "llmnodeprofiles"), ("patch", "llmnodeprofiles/status")}


def annotated_pod(lab: Lab, stage: Stage, number: int) -> Object:
    request = Request(f"p-{number}", lab.scenario.model, 0.0, 200, 60 + 10 * (number % 5), 1000, 60.0)
    pod = pod_manifest(request, namespace=stage.namespace)
    pod["metadata"]["annotations"] |= {
        names.MODEL_ANNOTATION: request.model,
        names.DEADLINE_ANNOTATION: "20s",
        names.PROMPT_TOKENS_ANNOTATION: str(request.prompt_tokens),
        names.INPUT_BYTES_ANNOTATION: str(request.input_bytes),
    }
    return pod
