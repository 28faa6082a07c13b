from perllm.cluster.client import Object
from perllm.kueue.transitions import build_finish, build_ready, build_release
from unit.kueue.samples import SINCE, admit, evict, make_workload

NOW_S = 1000.0
NOW = "1970-01-01T00:16:40Z"


def truths(patch: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in patch["status"]["conditions"]}


def test_a_task_that_has_stopped_gives_back_its_quota_and_is_queued_again() -> None:
    patch = build_release(evict(), NOW_S)
    assert patch["status"]["admission"] is None
    assert truths(patch) == {
        "QuotaReserved": "False",
        "Admitted": "False",
        "Evicted": "True",
        "Requeued": "True",
        "PodsReady": "False",
    }


def test_after_any_other_eviction_kueue_decides_when_the_task_is_queued_again() -> None:
    assert truths(build_release(evict(reason="Deactivated"), NOW_S))["Requeued"] == "False"


def test_the_end_of_a_task_leaves_the_other_conditions_as_they_are() -> None:
    patch = build_finish(admit(), "Succeeded", "done", NOW_S)
    times = {one["type"]: one["lastTransitionTime"] for one in patch["status"]["conditions"]}
    assert times == {"QuotaReserved": SINCE, "Admitted": SINCE, "Evicted": SINCE, "Finished": NOW}
    assert "admission" not in patch["status"]


def test_a_condition_that_was_true_before_keeps_its_time() -> None:
    patch = build_ready(make_workload({"PodsReady": True}), NOW_S)
    assert [one["lastTransitionTime"] for one in patch["status"]["conditions"]] == [SINCE]


def test_nothing_is_written_over_what_was_not_seen() -> None:
    assert build_ready(admit(version="12"), NOW_S)["metadata"] == {"resourceVersion": "12"}
