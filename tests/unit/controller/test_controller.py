"""The controller at work: objects come in, requests to the API server go out."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.client import ApiUnreachableError
from perllm.cluster.devices import read_claim
from perllm.cluster.pod import read_pod
from perllm.cluster.pod_ends import PodPatience
from perllm.cluster.times import format_time
from perllm.controller.reconciler import BLIND_PAUSE_S, LOOK_S, PROGRESS_DELAY_S, Reconciler
from perllm.controller.settings import ControllerSettings
from perllm.energy.bill import Owner
from perllm.energy.settlement import SETTLING_S
from perllm.placement.counterfactual import Prospect
from unit.cluster.device_objects import GPUS, claim_object, request
from unit.controller.one_node_cluster import PODS, START_S, Cluster, container, run_through
from unit.controller.samples import make_own_decision

pytestmark = pytest.mark.looptime


async def test_a_task_is_run_measured_learned_and_announced(cluster: Cluster) -> None:
    await run_through(cluster)
    status = cluster.status()
    assert (status["phase"], status["nodeName"], status["deadlineMet"]) == ("Succeeded", "n", True)
    assert (status["observed"]["energyQuality"], status["decision"]["policy"]) == ("measured", "cs-ucb")
    assert cluster.parts.learner.summaries("n")["m"].count == 1
    assert len(cluster.parts.ledger) == 0
    assert cluster.metric("perllm_outcomes_learned_total") == 1
    assert cluster.metric("perllm_decisions_total", policy="cs-ucb", tier="edge", explored="false") == 1
    assert cluster.metric("perllm_deadlines_total", tier="edge", met="true") == 1


class BillingCluster(Cluster):
    """Tasks are billed by their label team."""

    settings = ControllerSettings(bill_label="team")


async def test_a_task_is_billed_to_its_namespace_and_its_value_of_the_label() -> None:
    cluster = BillingCluster()
    cluster.api.store(names.task_path("lab", "t"), metadata={"labels": {"team": "red"}})
    await run_through(cluster)
    cluster.stop()

    assert cluster.settlement.find_owner("n", "uid-t-1") == Owner("lab", "red")
    for payer in ({"by": "namespace", "payer": "lab"}, {"by": "label", "payer": "red"}):
        assert cluster.metric("perllm_bill_tasks_total", **payer, phase="Succeeded") == 1
        assert cluster.metric("perllm_bill_deadlines_total", **payer, met="true") == 1
        assert cluster.metric("perllm_bill_measurements_total", **payer, quality="measured") == 1


async def test_a_report_has_the_node_the_promise_and_the_time_of_a_task(cluster: Cluster) -> None:
    await run_through(cluster)

    assert cluster.metric("perllm_node_tasks_total", node="n", tier="edge", gpu="T4", met="true") == 1
    assert cluster.metric("perllm_promises_total", chance="90-95", met="true") == 1
    assert cluster.metric("perllm_node_task_seconds_total", node="n", part="queue") == pytest.approx(2, abs=1)
    parts = ("queue", "transfer", "inference", "other")
    all_s = sum(cluster.metric("perllm_node_task_seconds_total", node="n", part=part) for part in parts)
    assert all_s == pytest.approx(cluster.status()["observed"]["latency"])


async def run_with_counterfactual(cluster: Cluster) -> None:
    """Let task t run on node n, with a decision that says what was expected elsewhere."""
    cluster.create()
    await asyncio.sleep(2)
    elsewhere = make_own_decision(energy_j=5000.0, fixed_j=4600.0).forecast
    cluster.bind(counterfactual=Prospect(node="k", gpu_type="A100", at_s=START_S, forecast=elsewhere))
    await asyncio.sleep(8.5)
    cluster.finish()
    await asyncio.sleep(SETTLING_S + 1)


async def test_a_task_is_compared_with_its_counterfactual(cluster: Cluster) -> None:
    await run_with_counterfactual(cluster)
    assert cluster.status()["decision"]["counterfactual"]["node"] == "k"
    assert cluster.metric("perllm_compared_tasks", unit="joules") == 1
    assert cluster.metric("perllm_saved_joules", bound="total") > 3000


async def test_a_task_is_learned_from_even_if_the_comparison_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(type(cluster.scheduler), "review", fail)
    await run_with_counterfactual(cluster)
    assert cluster.parts.learner.summaries("n")["m"].count == 1
    assert cluster.metric("perllm_compared_tasks", unit="joules") == 0


async def test_nothing_is_learned_from_a_pod_whose_container_was_restarted_and_it_is_released(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:48Z", "finishedAt": "1970-01-01T00:16:50Z"}
    statuses = [{**container({"terminated": ended}), "restartCount": 2}]
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": statuses})
    await asyncio.sleep(SETTLING_S + 3)
    assert (cluster.status()["phase"], cluster.status()["observed"]["energyQuality"]) == ("Succeeded", "measured")
    assert cluster.parts.learner.summaries("n") == {}
    assert not (cluster.api.read(f"{PODS}/t-1") or {})["metadata"].get("finalizers")


async def test_an_outcome_is_learned_once_it_is_stored(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    cluster.finish()
    cluster.api.fail("PATCH", *[ApiUnreachableError("gone")] * 5)
    await asyncio.sleep(SETTLING_S + 0.1)
    assert cluster.parts.learner.summaries("n") == {}
    await asyncio.sleep(20)
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_a_task_is_not_reconciled_while_only_its_energy_is_awaited(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(38)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:17:19Z"}
    cluster.pod(status={"phase": "Succeeded", "containerStatuses": [container({"terminated": ended})]})
    await asyncio.sleep(1)
    reconciled = list[Any]()
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_reconcile", lambda *_: reconciled.append(1))
        await asyncio.sleep(20)
    assert not reconciled
    await asyncio.sleep(15)
    assert cluster.status()["observed"]["energyQuality"] == "missing"


async def test_a_restart_loses_nothing_and_runs_nothing_twice(cluster: Cluster) -> None:
    await run_through(cluster)
    cluster.create("waits")
    cluster.stop()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.start()
    calls = len(cluster.api.calls)
    for path in (f"{PODS}/t-1", f"{PODS}/waits-1"):
        if (pod := cluster.api.read(path)) is not None:
            restarted.controller.on_pod(None, read_pod(pod))
    for name in ("t", "waits"):
        item = cluster.api.read(names.task_path("lab", name))
        assert item is not None
        restarted.controller.on_task(item, deleted=False)
    assert restarted.parts.learner.summaries("n")["m"].count == 1
    assert len(cluster.api.calls) == calls
    assert restarted.scheduler.waiting == 1
    restarted.stop()


async def test_a_running_task_counts_as_in_flight_after_a_restart(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    restarted = Cluster(cluster.api, cluster.begun_s)
    restarted.see_pod()
    item = cluster.api.read(names.task_path("lab", "t"))
    assert item is not None
    restarted.controller.on_task(item, deleted=False)
    assert len(restarted.parts.ledger) == 1


async def test_the_size_of_a_claim_that_is_created_after_its_task_counts() -> None:
    class DeviceCluster(Cluster):
        settings = ControllerSettings(devices=(GPUS,))

    cluster = DeviceCluster()
    cluster.create("first", template=claiming("c"), deadline="1h")
    template = replace(read_claim(claim_object("c", request(2))), is_template=True)
    cluster.controller.on_claim(None, template)
    cluster.create("second", template=claiming("c"), deadline="1h")
    await asyncio.sleep(1)
    assert cluster.pods == ["first-1"]
    cluster.stop()


def claiming(name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "llm", "image": "llm"}]}
    return {"spec": {**spec, "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}]}}


async def test_the_successor_of_a_lost_pod_stays_in_flight_when_that_is_gone_at_last(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    cluster.pod(metadata={"deletionTimestamp": "1970-01-01T00:16:43Z"})
    await asyncio.sleep(1)
    assert cluster.pods == ["t-1", "t-2"]
    cluster.bind("t-2")
    cluster.lose_pod("t-1")
    assert len(cluster.parts.ledger) == 1
    assert cluster.status().get("phase") != "Failed"


async def test_a_pod_that_vanishes_unbound_is_replaced(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(0.1)
    cluster.pod(status={"phase": "Failed", "reason": "OutOfcpu"}, spec={"nodeName": "n"})
    await asyncio.sleep(0.1)
    cluster.pod("t-2", status={"phase": "Pending"})
    cluster.lose_pod("t-2")
    await asyncio.sleep(0.1)
    assert cluster.pods == ["t-1", "t-2", "t-3"]


async def test_a_failed_task_expires_at_its_time(cluster: Cluster) -> None:
    cluster.create(ttlAfterFinished="1m")
    await asyncio.sleep(1)
    cluster.bind()
    cluster.finish(exit_code=3)
    await asyncio.sleep(59)
    assert cluster.status()["phase"] == "Failed"
    cluster.api.fail("DELETE", ApiUnreachableError("gone"))
    await asyncio.sleep(5)
    assert cluster.api.read(names.task_path("lab", "t")) is None


async def test_a_rejected_task_expires_at_its_time(cluster: Cluster) -> None:
    cluster.create(onInfeasible="Reject", tiers=["cloud"], ttlAfterFinished="10s")
    await asyncio.sleep(1)
    status = cluster.status()
    assert status["phase"] == "Rejected"
    assert status["message"] == "no node satisfies: tiers cloud (1 node); onInfeasible is Reject"
    await asyncio.sleep(10)
    assert cluster.api.read(names.task_path("lab", "t")) is None


async def test_a_rejection_names_the_best_node(cluster: Cluster) -> None:
    cluster.create(onInfeasible="Reject", deadline="2s")
    await asyncio.sleep(0.5)
    message = cluster.status()["message"]
    assert cluster.status()["phase"] == "Rejected"
    assert message.startswith(
        "no node is expected to meet the deadline of 2s (excluded: 1 by late); best is n with a chance"
    )
    assert "at least 50% is required" in message


async def test_a_namesake_of_a_deleted_task_has_nothing_to_do_with_its_pod(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    cluster.bind()
    cluster.delete()
    assert len(cluster.parts.ledger) == 0
    cluster.create(uid="uid-new")
    cluster.finish()
    await asyncio.sleep(1.5)
    assert cluster.status()["phase"] == "Pending"
    cluster.lose_pod()
    await asyncio.sleep(3)
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "uid-new"


async def test_a_request_is_that_of_the_pods_own_task(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    pod = cluster.api.read(f"{PODS}/t-1")
    assert pod is not None
    request = cluster.controller.request_of(pod)
    assert request is not None
    assert request.task_id == "uid-t"
    pod["metadata"]["ownerReferences"][0]["uid"] = "another"
    assert cluster.controller.request_of(pod) is None
    assert cluster.controller.request_of({"metadata": {"name": "x", "namespace": "lab"}}) is None


async def test_a_task_that_is_not_listed_was_deleted_unseen(cluster: Cluster) -> None:
    cluster.create("gone")
    cluster.create("kept")
    await asyncio.sleep(1)
    cluster.controller.on_list("elsewhere", {})
    assert cluster.parts.ledger.flight("uid-gone") is not None
    cluster.controller.on_list(None, {"lab/kept": "uid-kept"})
    assert cluster.parts.ledger.flight("uid-gone") is None
    assert cluster.parts.ledger.flight("uid-kept") is not None


async def test_a_pod_that_a_proxy_keeps_alive_is_ended_and_its_run_counts(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(2)
    cluster.bind()
    await asyncio.sleep(8.5)
    ended = {"exitCode": 0, "startedAt": "1970-01-01T00:16:42Z", "finishedAt": "1970-01-01T00:16:50Z"}
    proxy = container({"running": {"startedAt": "1970-01-01T00:16:42Z"}}, "istio-proxy")
    containers = [{"name": "istio-proxy"}, {"name": "llm"}]
    statuses = [proxy, container({"terminated": ended})]
    cluster.pod(spec={"containers": containers}, status={"phase": "Running", "containerStatuses": statuses})
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is None
    cluster.report_gone("t-1", containers, statuses)
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(SETTLING_S + 1)
    status = cluster.status()
    assert (status["phase"], status["observed"]["latency"], status["observed"]["energyQuality"]) == (
        "Succeeded",
        10.5,
        "measured",
    )
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_a_pod_that_never_starts_is_replaced_after_the_start_timeout(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    creating = [container({"waiting": {"reason": "ContainerCreating"}})]
    cluster.pod(metadata={"creationTimestamp": format_time(1001)}, status={"phase": "Pending"})
    cluster.bind()
    cluster.pod(status={"containerStatuses": creating})
    await asyncio.sleep(PodPatience().start_s - 1)
    assert (cluster.pods, cluster.status()["phase"]) == (["t-1"], "Scheduled")
    await asyncio.sleep(3)
    assert cluster.api.read(f"{PODS}/t-1") is None
    assert "StartTimeout: no container started within 300 s" in cluster.condition("Scheduled")["message"]
    assert cluster.metric("perllm_pods_refused_total") == 1
    # There is no other node, so the task is held for a while before it is retried there.
    await asyncio.sleep(20)
    assert cluster.pods == ["t-1", "t-2"]


async def test_a_pod_that_can_never_start_ends_the_task_with_the_message_of_kubelet(cluster: Cluster) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.pod(metadata={"creationTimestamp": format_time(1001)}, status={"phase": "Pending"})
    cluster.bind()
    wrong = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "key" not found'}}
    cluster.pod(status={"phase": "Pending", "containerStatuses": [container(wrong)]})
    await asyncio.sleep(1.1)
    words = 'CreateContainerConfigError: secret "key" not found'
    assert cluster.status()["message"] == f"the pod is starting: {words}"
    await asyncio.sleep(PodPatience().mistake_s + 1)
    assert (cluster.status()["phase"], cluster.status()["message"]) == ("Failed", f"pod t-1 failed: {words}")
    assert cluster.api.read(f"{PODS}/t-1") is None


async def test_a_task_that_is_being_deleted_gets_no_new_pod(cluster: Cluster) -> None:
    cluster.create(retries=3)
    await asyncio.sleep(1)
    cluster.bind()
    item = cluster.api.store(
        names.task_path("lab", "t"), metadata={"deletionTimestamp": "1970-01-01T00:16:41Z", "finalizers": ["x/y"]}
    )
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.1)
    assert cluster.api.read(f"{PODS}/t-1") is None
    cluster.report_gone("t-1", [{"name": "llm"}], [])
    await asyncio.sleep(5)
    assert (cluster.pods, cluster.condition("Finished")["reason"]) == (["t-1"], "Deleted")


async def test_progress_is_written_once_unless_there_is_something_to_explain(cluster: Cluster) -> None:
    cluster.create()
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(1)
    cluster.pod(status={"phase": "Running", "containerStatuses": [container({"running": {}})]})
    await asyncio.sleep(PROGRESS_DELAY_S)
    statuses = [patch[-1]["value"] for path, patch in cluster.api.calls_of("PATCH") if path.endswith("/status")]
    assert [status["phase"] for status in statuses] == ["Running"]


async def test_the_more_tasks_have_progress_to_write_the_longer_it_waits(cluster: Cluster) -> None:
    def count_written() -> int:
        return len({path for path, _ in cluster.api.calls_of("PATCH") if path.endswith("/status")})

    for number in range(60):
        cluster.create(f"t{number}")
    await asyncio.sleep(PROGRESS_DELAY_S + 1.0)
    assert 30 <= count_written() <= 45
    await asyncio.sleep(2.1)
    assert count_written() == 60


async def test_an_earlier_pod_that_goes_later_does_not_hide_the_one_that_succeeded(cluster: Cluster) -> None:
    cluster.create(retries=1)
    await asyncio.sleep(1)
    cluster.bind()
    cluster.finish(exit_code=3)
    await asyncio.sleep(1)
    cluster.bind("t-2")
    await asyncio.sleep(8.5)
    cluster.finish("t-2")
    for name in ("t-2", "t-1"):
        cluster.lose_pod(name)
    await asyncio.sleep(SETTLING_S + 1)
    assert cluster.status()["observed"]["energyQuality"] != "missing"
    assert cluster.parts.learner.summaries("n")["m"].count == 1


@pytest.mark.parametrize("calls", range(1, 8))
async def test_a_deadline_that_passes_while_a_task_is_reconciled_is_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    cluster.create(onDeadlineMissed="Terminate", deadline="30s")
    await asyncio.sleep(1)
    cluster.bind()
    await asyncio.sleep(29.0005)
    before = iter([START_S + 29.9995] * calls)
    monkeypatch.setattr(cluster.controller, "_unix_now", lambda: next(before, cluster.now_s()))
    cluster.pod(metadata={"labels": {"touched": "yes"}})
    await asyncio.sleep(1)
    assert cluster.status()["phase"] == "Failed"


@pytest.mark.parametrize(("finishes", "phase"), [(True, "Succeeded"), (False, "Failed")])
async def test_a_pod_that_ended_in_time_has_succeeded_though_it_could_not_report_that_during_an_outage(
    cluster: Cluster, finishes: bool, phase: str
) -> None:
    cluster.create(deadline="11s", onDeadlineMissed="Terminate")
    await asyncio.sleep(2)
    cluster.bind()
    cluster.outdated.add("lab")
    await asyncio.sleep(60)
    assert cluster.status()["phase"] in ("Pending", "Scheduled")
    if finishes:
        cluster.finish()
    cluster.outdated.clear()
    await asyncio.sleep(BLIND_PAUSE_S + 1)
    assert (cluster.status()["phase"], cluster.status()["deadlineMet"]) == (phase, finishes)


@pytest.mark.parametrize(
    ("reason", "phase"), [("ContainerCreating", "Pending"), ("CreateContainerConfigError", "Failed")]
)
@pytest.mark.parametrize("starts", [True, False])
async def test_a_pod_is_not_given_up_for_not_having_started_while_its_node_cannot_report_that(
    cluster: Cluster, reason: str, phase: str, starts: bool
) -> None:
    cluster.create(deadline="1h")
    await asyncio.sleep(1)
    cluster.pod(metadata={"creationTimestamp": format_time(1001)}, status={"phase": "Pending"})
    cluster.bind()
    cluster.pod(status={"containerStatuses": [container({"waiting": {"reason": reason}})]})
    cluster.outdated.add("lab")
    await asyncio.sleep(2 * PodPatience().start_s)
    assert (cluster.pods, cluster.status()["phase"]) == (["t-1"], "Scheduled")
    if starts:
        since = {"startedAt": format_time(1020)}
        cluster.pod(status={"phase": "Running", "containerStatuses": [container({"running": since})]})
    cluster.outdated.clear()
    await asyncio.sleep(BLIND_PAUSE_S + 4)
    assert cluster.status()["phase"] == ("Running" if starts else phase)
    assert (cluster.api.read(f"{PODS}/t-1") is not None) == starts


@pytest.mark.parametrize("jump_s", [300.0, -300.0], ids=["forward", "back"])
async def test_a_deadline_holds_by_the_clock_although_that_is_set_to_another_time(
    cluster: Cluster, jump_s: float
) -> None:
    cluster.create(deadline="10m", onDeadlineMissed="Terminate")
    await asyncio.sleep(1)
    assert cluster.begun_s is not None
    cluster.begun_s -= jump_s
    await asyncio.sleep(600.0 - jump_s - 10)
    assert cluster.status()["phase"] == "Pending"
    await asyncio.sleep(10 + LOOK_S)
    assert cluster.status()["phase"] == "Failed"
