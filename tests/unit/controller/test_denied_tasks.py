"""Templates and pods that the API server denies."""

import asyncio
from typing import Any

import pytest

from perllm.cluster.client import ApiError, ApiTimeoutError, ApiUnreachableError
from perllm.cluster.obstacles import Obstacle
from perllm.cluster.pod import read_pod
from perllm.controller.pods import build_pod
from perllm.controller.task import read_task
from unit.controller.one_node_cluster import PODS, START_S, Cluster
from unit.controller.samples import task_object

pytestmark = pytest.mark.looptime


async def test_a_template_that_the_api_server_denies_ends_the_task(cluster: Cluster) -> None:
    cluster.api.fail("POST", ApiError(422, "Invalid", "spec.containers[0].image: Required value"))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Rejected"
    assert "spec.containers[0].image: Required value" in cluster.status()["message"]


async def test_a_template_that_no_pod_can_be_made_from_ends_the_task(cluster: Cluster) -> None:
    cluster.api.fail("POST", TypeError("Recursion limit reached"))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Rejected"
    assert (
        "spec.template cannot be used: no pod can be made from it: TypeError: Recursion limit reached"
        in cluster.status()["message"]
    )


async def test_a_fault_of_the_operator_is_not_a_verdict_on_a_template(cluster: Cluster) -> None:
    cluster.api.fail("POST", *[FileNotFoundError("the token of the service account")] * 3)
    cluster.create()
    await asyncio.sleep(1.5)
    assert cluster.status()["phase"] == "Pending"
    assert "FileNotFoundError: the token of the service account" in cluster.status()["message"]
    await asyncio.sleep(5)
    assert cluster.api.read(f"{PODS}/t-1") is not None


async def test_the_api_server_is_asked_to_deny_unknown_fields(cluster: Cluster) -> None:
    unknown = 'strict decoding error: unknown field "spec.containers[0].comand"'
    cluster.api.fail("POST", ApiError(400, "BadRequest", unknown))
    cluster.create()
    await asyncio.sleep(1)
    assert cluster.api.queries_of("POST") == [{"fieldValidation": "Strict"}]
    assert unknown in cluster.status()["message"]


QUOTA = ApiError(403, "Forbidden", 'pods "t-1" is forbidden: exceeded quota: none, requested: pods=1')


async def test_a_denied_pod_is_reported_until_that_changes(cluster: Cluster) -> None:
    cluster.api.fail("POST", *[QUOTA] * 20)
    cluster.create()
    await asyncio.sleep(50)
    status = cluster.status()
    (scheduled,) = (one for one in status["conditions"] if one["type"] == "Scheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "QuotaExceeded")
    assert status["message"] == scheduled["message"]
    assert QUOTA.message in status["message"]
    assert (status["phase"], status["attempts"]) == ("Pending", 0)
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_tasks_postponed", cause="QuotaExceeded") == 1
    assert len(cluster.pods) < 10
    events = [body for path, body in cluster.api.calls_of("POST") if path.endswith("/events")]
    assert len([one for one in events if one["reason"] == "Postponed"]) <= 1


@pytest.mark.parametrize(
    ("hand", "old", "new"),
    [
        ("on_quota", Obstacle("lab", {"spec": {"hard": {"pods": "0"}}}), Obstacle("lab", {"spec": {}})),
        ("on_quota", Obstacle("lab", {}), None),
        ("on_namespace", Obstacle("lab", {"pod-security.kubernetes.io/enforce": "restricted"}), Obstacle("lab", {})),
    ],
)
async def test_a_denied_pod_is_retried_at_once_when_the_cause_may_have_gone(
    cluster: Cluster, hand: str, old: Obstacle, new: Obstacle | None
) -> None:
    cluster.api.fail("POST", *[QUOTA] * 100)
    cluster.create()
    await asyncio.sleep(60)
    cluster.api.recover("POST")
    getattr(cluster.controller, hand)(old, new)
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is not None


async def test_a_pod_that_was_created_though_the_answer_was_lost_is_not_created_again(cluster: Cluster) -> None:
    cluster.api.fail("POST", ApiUnreachableError("timeout"))
    cluster.create()
    await asyncio.sleep(0.1)
    item = cluster.api.store(f"{PODS}/t-1", **build_pod(read_task(task_object(), START_S)[0], 1, "perllm"))
    cluster.controller.on_pod(None, read_pod(item))
    await asyncio.sleep(60)
    assert cluster.pods == ["t-1"]


async def test_a_creation_that_hangs_is_reported_as_a_failed_webhook(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(path: str, body: Any, **query: str) -> None:
        await asyncio.sleep(30.0)
        raise ApiTimeoutError("no answer in time")

    monkeypatch.setattr(cluster.api, "post", hang)
    cluster.create()
    await asyncio.sleep(31.5)
    assert cluster.condition("Scheduled")["reason"] == "WebhookFailed"


async def test_room_is_not_kept_for_a_pod_that_kube_scheduler_cannot_place(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(0.1)
    assert len(cluster.parts.ledger) == 1
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    cluster.pod(status={"phase": "Pending", "conditions": [unschedulable]})
    assert len(cluster.parts.ledger) == 0


@pytest.mark.parametrize("error", [ApiUnreachableError("gone"), ApiError(403, "Forbidden", "exceeded quota")])
async def test_a_pod_that_could_not_be_created_is_retried(cluster: Cluster, error: ApiError) -> None:
    cluster.api.fail("POST", error, error)
    cluster.create()
    await asyncio.sleep(5)
    assert cluster.api.read(f"{PODS}/t-1") is not None
    assert set(cluster.pods) == {"t-1"}


async def test_a_template_that_is_denied_when_its_task_has_ended_changes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deny_late(*_: Any, **__: Any) -> None:
        await asyncio.sleep(20)
        raise ApiError(422, "Invalid", "spec.containers[0].image: Required value")

    monkeypatch.setattr(cluster.api, "post", deny_late)
    cluster.create(onDeadlineMissed="Terminate", deadline="10s")
    await asyncio.sleep(30)
    assert (cluster.status()["phase"], cluster.condition("Finished")["reason"]) == ("Failed", "DeadlineExceeded")
