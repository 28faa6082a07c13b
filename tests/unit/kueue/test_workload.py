import pytest

from perllm.kueue.flavor import read_flavor
from perllm.kueue.pod_update import PodUpdate, merge_updates
from perllm.kueue.workload import build_request_template, build_workload, read_workload, workload_name
from unit.kueue.samples import EDGE, admit, evict, make_queued, make_workload, workload_object


def test_a_workload_asks_for_what_the_pod_template_requests_in_the_queue_of_the_task() -> None:
    task = make_queued(queue="team", priority=7)
    spec = build_workload(task)["spec"]
    assert (spec["queueName"], spec["priority"]) == ("team", 7)
    assert spec["podSets"] == [{"name": "main", "count": 1, "template": {"spec": task.template["spec"]}}]


def test_a_served_task_asks_for_one_unit_of_the_configured_resource() -> None:
    [container] = build_request_template("example.com/requests")["spec"]["containers"]
    assert container["resources"] == {"requests": {"example.com/requests": "1"}}


def test_a_workload_is_deleted_with_its_task_and_belongs_to_no_later_task_of_the_same_name() -> None:
    [owner] = build_workload(make_queued())["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("LLMInferenceTask", "uid-t")
    assert workload_name("t", "a") != workload_name("t", "b")


@pytest.mark.parametrize("name", ["t", "t" * 63])
def test_the_name_of_a_workload_fits_a_name_of_an_object(name: str) -> None:
    assert len(workload_name(name, "uid")) <= 253
    assert name in workload_name(name, "uid")


def test_a_workload_of_anything_but_a_task_is_ignored() -> None:
    item = workload_object()
    item["metadata"]["ownerReferences"][0]["kind"] = "Job"
    assert read_workload(item) is None


def test_a_task_may_run_while_its_workload_is_admitted_and_not_evicted_or_if_it_is_finished() -> None:
    assert admit().may_run
    assert not make_workload({"QuotaReserved": True}).may_run
    assert not evict().may_run
    assert make_workload({"Finished": True}).may_run


@pytest.mark.parametrize(
    ("conditions", "telling"),
    [
        ({"QuotaReserved": False, "Admitted": False}, "QuotaReserved"),
        ({"QuotaReserved": True, "Admitted": False}, "Admitted"),
        ({"QuotaReserved": True, "Admitted": True, "Evicted": True}, "Evicted"),
    ],
)
def test_why_a_task_waits_is_said_by_the_condition_that_holds_it_up(conditions: dict[str, bool], telling: str) -> None:
    workload = make_workload(conditions, messages={kind: f"words of {kind}" for kind in conditions})
    assert workload.explain() == f"words of {telling}"


def test_flavors_and_admission_checks_say_which_nodes_quota_is_for() -> None:
    check = {"name": "c", "podSetUpdates": [{"name": "main", "nodeSelector": {"zone": "a"}}]}
    workload = admit("edge", "spot", admissionChecks=[check])
    assert workload.flavors == ("edge", "spot")
    assert workload.update == PodUpdate((("zone", "a"),))


def test_admission_checks_may_add_labels_annotations_and_tolerations_to_the_pod() -> None:
    taint = {"key": "spot", "operator": "Exists"}
    booked = {"name": "main", "annotations": {"consumes": "request-1"}, "labels": {"booked": "yes"}}
    checks = [
        {"podSetUpdates": [booked]},
        {"podSetUpdates": [{"name": "main", "tolerations": [taint]}]},
        {"name": "none"},
    ]
    update = admit("edge", admissionChecks=checks).update
    assert update == PodUpdate((), (taint,), (("booked", "yes"),), (("consumes", "request-1"),))


def test_several_flavors_together_ask_for_all_their_labels_and_tolerate_all_their_taints() -> None:
    taint = {"key": "spot", "operator": "Exists"}
    edge = read_flavor({"metadata": {"name": "edge"}, "spec": {"nodeLabels": EDGE}})
    spot = read_flavor({"metadata": {"name": "spot"}, "spec": {"nodeLabels": {"spot": "yes"}, "tolerations": [taint]}})
    merged = merge_updates([edge.update, spot.update])
    assert merged == PodUpdate((("spot", "yes"), ("tier", "edge")), (taint,))
    assert merged.to_pod_spec() == {"nodeSelector": {"spot": "yes", **EDGE}, "tolerations": [taint]}
