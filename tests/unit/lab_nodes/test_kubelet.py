import asyncio
import dataclasses

import pytest

from perllm.api.names import MODEL_ANNOTATION, MODEL_LABEL, to_label_value
from perllm.api.report import parse_run_report
from perllm_lab.nodes.pods import read_job
from perllm_lab.nodes.writer import ForcedDeletion
from unit.lab_nodes.setting import SPEC, pod_object, start_node

pytestmark = pytest.mark.looptime


def phases(node):
    return [(at_s, write.body["status"]["phase"]) for at_s, write in node.writes]


def last_status(node):
    return node.writes[-1][1].body["status"]


async def test_a_pod_runs_and_succeeds_in_compressed_time():
    node = start_node()
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    # simulated: pod start 2 s, round trip 1 s, model load 4 s, prefill 1 s, 10 tokens in 1 s; twice as fast
    assert phases(node) == [(1.0, "Running"), (4.5, "Succeeded")]


async def test_the_run_report_is_in_wall_time():
    node = start_node()
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    container = last_status(node)["containerStatuses"][0]
    report = parse_run_report(container["state"]["terminated"]["message"])
    assert report.started_at.isoformat() == "2027-01-15T08:00:01+00:00"
    assert report.finished_at.isoformat() == "2027-01-15T08:00:04.500000+00:00"
    assert report.transfer_seconds == pytest.approx(0.5)
    assert report.inference_seconds == pytest.approx(1.0)
    assert (report.prompt_tokens, report.output_tokens) == (100, 10)


async def test_the_truth_holds_the_exact_energy():
    node = start_node()
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    (truth,) = node.records
    assert truth.outcome == "Succeeded"
    assert truth.task == "task-of-pod-1"
    assert truth.energy_j == pytest.approx(100 + 10 * 2)
    totals = node.machine.truth()
    assert totals.energy_j - totals.idle_energy_j == pytest.approx(truth.energy_j)
    assert totals.idle_energy_j == pytest.approx((120 - 2) * 10)


async def test_a_node_whose_clock_is_wrong_reports_wrong_times_and_the_truth_is_right():
    node = start_node()
    node.kubelet.set_clock(-3600.0)
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    state = last_status(node)["containerStatuses"][0]["state"]["terminated"]
    assert state["startedAt"] == "2027-01-15T07:00:01Z"
    assert parse_run_report(state["message"]).started_at.isoformat() == "2027-01-15T07:00:01+00:00"
    assert node.records[0].started == "2027-01-15T08:00:01.000000+00:00"


async def test_a_pod_runs_once_however_often_it_is_seen():
    node = start_node()
    for _ in range(3):
        node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    assert len(node.records) == 1


async def test_a_deleted_pod_stops_and_says_so_before_its_object_is_removed():
    node = start_node()
    node.kubelet.see(pod_object(output="100000"))
    await asyncio.sleep(5)
    leaving = pod_object(output="100000")
    leaving["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:05Z"
    node.kubelet.see(leaving)
    (_, end), (_, deletion) = node.writes[-2:]
    assert end.body["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert deletion == ForcedDeletion("/api/v1/namespaces/lab/pods/pod-1", "uid-pod-1")
    assert [(truth.outcome, truth.energy_j) for truth in node.records] == [("Deleted", pytest.approx(100 + 2 * 20))]
    node.kubelet.forget("uid-pod-1")
    await asyncio.sleep(60)
    assert len(node.records) == 1


async def test_a_pod_that_vanishes_stops_and_frees_its_slot():
    node = start_node()
    node.kubelet.see(pod_object("both", gpus="2"))
    node.kubelet.forget("uid-both")
    node.kubelet.see(pod_object("next", gpus="2"))
    await asyncio.sleep(60)
    assert phases(node)[-1][1] == "Succeeded"


async def test_a_pod_beyond_the_slots_is_refused_as_by_a_kubelet():
    node = start_node()
    node.kubelet.see(pod_object("first", gpus="2"))
    node.kubelet.see(pod_object("second"))
    refusal = last_status(node)
    assert (refusal["phase"], refusal["reason"]) == ("Failed", "OutOfnvidia.com/gpu")
    assert "requested: 1, used: 2, capacity: 2" in refusal["message"]


async def test_a_node_whose_devices_are_broken_refuses_every_pod_until_they_are_repaired():
    node = start_node()
    node.kubelet.refuses = True
    node.kubelet.see(pod_object("first"))
    assert last_status(node)["reason"] == "UnexpectedAdmissionError"
    node.kubelet.refuses = False
    node.kubelet.see(pod_object("second"))
    await asyncio.sleep(60)
    assert last_status(node)["phase"] == "Succeeded"


async def test_a_pod_started_by_an_earlier_kubelet_fails_and_never_runs_twice():
    node = start_node()
    started = pod_object()
    started["status"] = {"phase": "Running", "startTime": "2027-01-15T07:59:00Z"}
    node.kubelet.see(started)
    await asyncio.sleep(60)
    assert [(write.body["status"]["phase"], write.body["status"]["reason"]) for _, write in node.writes] == [
        ("Failed", "NodeRestarted")
    ]
    assert node.records == []


async def test_a_pod_annotated_to_fail_exits_1_without_a_report():
    node = start_node()
    node.kubelet.see(pod_object(fail="true"))
    await asyncio.sleep(60)
    state = last_status(node)["containerStatuses"][0]["state"]["terminated"]
    assert (last_status(node)["phase"], state["exitCode"], "message" in state) == ("Failed", 1, False)
    assert node.records[0].outcome == "Failed"


async def test_a_pod_without_annotations_counts_as_the_median_request():
    node = start_node()
    plain = pod_object()
    del plain["metadata"]["annotations"]
    node.kubelet.see(plain)
    await asyncio.sleep(60)
    assert (node.records[0].prompt_tokens, node.records[0].output_tokens) == (1020, 129)


@pytest.mark.parametrize(
    ("said", "model"),
    [
        pytest.param({"labels": {MODEL_LABEL: "code"}}, "code", id="the pod of a task is labelled"),
        pytest.param({"annotations": {MODEL_ANNOTATION: "meta/code"}}, to_label_value("meta/code"), id="annotated"),
        pytest.param({}, "chat", id="any other asks the server of its node"),
    ],
)
def test_a_pod_runs_the_model_that_it_names(said, model):
    assert read_job({"metadata": {"uid": "u", **said}}, "chat").model == model


async def test_a_pod_with_a_wrong_annotation_fails_and_says_which():
    node = start_node()
    node.kubelet.see(pod_object(prompt="many"))
    assert last_status(node)["reason"] == "CreateContainerConfigError"
    assert "lab.perllm.io/prompt-tokens must be a whole number, not 'many'" in last_status(node)["message"]


async def test_after_a_power_cut_nothing_is_written_and_the_runs_are_lost():
    node = start_node()
    node.kubelet.see(pod_object())
    await asyncio.sleep(2)
    node.host.cut_power()
    written = len(node.writes)
    node.kubelet.see(pod_object("ignored"))
    await asyncio.sleep(60)
    assert len(node.writes) == written
    assert [truth.outcome for truth in node.records] == ["Lost"]
    assert node.machine.truth().energy_j == pytest.approx(4 * 10)


async def test_a_node_that_boots_counts_from_zero_and_loads_its_model_again():
    node = start_node()
    node.kubelet.see(pod_object("before"))
    await asyncio.sleep(60)
    node.host.cut_power()
    node.host.boot()
    assert node.machine.sample().energy_j == 0.0
    node.kubelet.see(pod_object("after"))
    await asyncio.sleep(60)
    assert phases(node)[-1] == (64.5, "Succeeded")
    assert sum(truth.energy_j for truth in node.records) == pytest.approx(240)
    totals = node.machine.truth()
    assert totals.energy_j - totals.idle_energy_j == pytest.approx(240)
    assert totals.runs == 2


async def test_a_node_whose_model_is_resident_never_loads_it():
    node = start_node(dataclasses.replace(SPEC, resident=True))
    node.kubelet.see(pod_object())
    await asyncio.sleep(60)
    usual = start_node()
    usual.kubelet.see(pod_object())
    await asyncio.sleep(60)
    assert phases(usual)[-1][0] - phases(node)[-1][0] == pytest.approx(4.0 / 2)


async def test_a_node_has_the_slots_of_all_its_gpus():
    node = start_node(dataclasses.replace(SPEC, gpus=2))
    for number in range(5):
        node.kubelet.see(pod_object(f"pod-{number}"))
    assert last_status(node)["reason"] == "OutOfnvidia.com/gpu"
    await asyncio.sleep(60)
    assert len(node.records) == 4
