import pytest

from perllm.cluster.times import format_time
from perllm.doctor.finding import Level
from perllm.doctor.pods import check_lease, check_pods
from perllm.doctor.tasks import check_scheduled_pods, check_tasks
from unit.doctor.cluster_objects import NOW_S, Object, make_item, make_own_pod


def test_pods_that_work_are_fine() -> None:
    (finding,) = check_pods([make_own_pod(), make_item("other", age_s=1, spec={"containers": [{"name": "x"}]})], "home")
    assert str(finding) == "ok   pods of PerLLM: operator and scheduler of perllm-1 are ready"


def test_no_pod_fails_and_says_where_it_was_sought() -> None:
    (finding,) = check_pods([], "home")
    assert finding.level is Level.FAIL
    assert "none in namespace home" in finding.message


def test_a_container_that_is_not_ready_tells_why() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}
    (finding,) = check_pods([make_own_pod(ready=("operator",), scheduler=waiting)], "home")
    assert finding.level is Level.FAIL
    assert "scheduler of perllm-1 is not ready: ImagePullBackOff, no such tag" in finding.message
    assert "kubectl -n perllm-system logs perllm-1 -c scheduler" in finding.advice


def test_a_pod_that_was_never_started_tells_why() -> None:
    pod = make_own_pod()
    pod["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]}
    assert next(one.message for one in check_pods([pod], "home")).endswith("operator of perllm-1 is not ready: no room")


def test_many_restarts_are_a_warning() -> None:
    crashed = {"restartCount": 9, "lastState": {"terminated": {"reason": "OOMKilled"}}}
    _, finding = check_pods([make_own_pod(operator=crashed)], "home")
    assert finding.level is Level.WARN
    assert "operator of perllm-1 was restarted 9 times: OOMKilled" in finding.message


@pytest.mark.parametrize(
    ("holder", "age_s", "level"), [("pod_1", 2, Level.OK), ("pod_1", 600, Level.FAIL), ("", 2, Level.FAIL)]
)
def test_a_lease_must_be_held_and_renewed(holder: str, age_s: float, level: Level) -> None:
    lease = {"spec": {"holderIdentity": holder, "renewTime": format_time(NOW_S - age_s)}}
    assert check_lease(lease, "home/turns", NOW_S).level is level


def test_a_lease_that_does_not_exist_fails() -> None:
    assert check_lease(None, "home/turns", NOW_S).level is Level.FAIL


def task(name: str, age_s: float, phase: str | None = None, message: str = "") -> Object:
    return make_item(name, age_s=age_s, **({"status": {"phase": phase, "message": message}} if phase else {}))


def test_tasks_that_nobody_has_seen_fail() -> None:
    (finding,) = check_tasks([task("new", 5), task("old", 60), task("done", 900, "Succeeded")], NOW_S)
    assert (finding.level, finding.message) == (Level.FAIL, "no operator has picked up a/old")


def test_tasks_that_wait_for_long_tell_why() -> None:
    waiting = [task("one", 400, "Pending", "none"), task("two", 900, "Pending", "all nodes are full")]
    (finding,) = check_tasks(waiting, NOW_S)
    assert finding.level is Level.WARN
    message = "2 of namespace a are waiting, the first one for 900 s; Waiting: 2, for example a/two: all nodes are full"
    assert finding.message == message
    assert finding.advice == "kubectl describe llmtask two -n a"


def test_tasks_without_a_model_server_are_reported_at_once_with_what_to_do() -> None:
    (finding,) = check_tasks([refused_task("t", 6, "team-a", "NoModelServer")], NOW_S)
    assert finding.level == Level.WARN
    assert finding.advice.startswith("kubectl get llmservers: start a model server")
    assert "config.runner.server_url" in finding.advice


def refused_task(name: str, age_s: float, namespace: str, reason: str = "QuotaExceeded") -> Object:
    item = task(name, age_s, "Pending", "exceeded quota: none")
    item["metadata"]["namespace"] = namespace
    item["status"]["conditions"] = [{"type": "Scheduled", "status": "False", "reason": reason}]
    return item


def test_namespaces_whose_pods_are_refused_are_named_at_once_with_the_main_cause() -> None:
    refused = [refused_task(f"t{number}", 10 + number, "team-a") for number in range(3)]
    other = refused_task("x", 99, "team-a", "PodForbidden")
    young = task("young", 5, "Pending")
    (finding,) = check_tasks([*refused, other, young], NOW_S)
    assert finding.level is Level.WARN
    assert finding.message == (
        "4 of namespace team-a are waiting, the first one for 99 s; "
        "QuotaExceeded: 3, for example team-a/t2: exceeded quota: none"
    )


def test_of_many_namespaces_that_wait_the_first_are_explained() -> None:
    findings = list(check_tasks([refused_task("t", 60, f"n{number}") for number in range(7)], NOW_S))
    assert len(findings) == 6
    assert findings[-1].message == "tasks of n5, n6 are waiting as well"


def pod(name: str, age_s: float, node: str = "", **status: object) -> Object:
    return make_item(name, age_s=age_s, spec={"nodeName": node} if node else {}, status=status)


def test_pods_that_no_scheduler_looks_at_fail_and_name_the_profile() -> None:
    (finding,) = check_scheduled_pods("pods", [pod("new", 3), pod("old", 60)], "mine", NOW_S)
    assert (finding.level, finding.message) == (Level.FAIL, "no kube-scheduler has tried to schedule a/old")
    assert "profile mine" in finding.advice


def test_pods_that_fit_nowhere_tell_why() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    (finding,) = check_scheduled_pods("pods", [pod("p", 60, conditions=[condition])], "perllm", NOW_S)
    assert finding.level is Level.WARN
    assert "for example a/p: 0/3 nodes are available" in finding.message


def test_pods_that_fit_nowhere_are_counted_by_reason() -> None:
    reasons = ["full", "full", "annotation perllm.io/model is missing"]
    pods = [
        pod(f"p{number}", 60, conditions=[{"type": "PodScheduled", "status": "False", "message": reason}])
        for number, reason in enumerate(reasons)
    ]
    findings = list(check_scheduled_pods("annotated pods", pods, "perllm", NOW_S))
    assert [(one.check, one.message) for one in findings] == [
        ("annotated pods", "2 fit no node, for example a/p0: full"),
        ("annotated pods", "1 fit no node, for example a/p2: annotation perllm.io/model is missing"),
    ]


def test_gated_pods_wait_for_their_owner() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    (finding,) = check_scheduled_pods("pods", [pod("p", 60, conditions=[condition])], "perllm", NOW_S)
    assert finding.level is Level.OK


def test_pods_whose_container_cannot_start_tell_why() -> None:
    statuses = [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]
    (finding,) = check_scheduled_pods("pods", [pod("p", 60, "n", containerStatuses=statuses)], "perllm", NOW_S)
    assert finding.level is Level.WARN
    assert "1 do not start, for example a/p: ErrImagePull, not found" in finding.message


def test_pods_and_tasks_that_move_are_fine() -> None:
    starting = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    pods = [pod("new", 3), pod("p", 60, "n", containerStatuses=starting)]
    findings = [*check_scheduled_pods("pods", pods, "perllm", NOW_S), *check_tasks([task("t", 5, "Pending")], NOW_S)]
    assert {one.level for one in findings} == {Level.OK}


def test_words_of_the_cluster_move_no_cursor_and_forge_no_line() -> None:
    words = "\x1b[2J0/3 nodes\nok   tasks: 9, none waits for long" + "!" * 10_000
    condition = {"type": "PodScheduled", "status": "False", "message": words}
    (finding,) = check_scheduled_pods("pods", [pod("p", 60, conditions=[condition])], "perllm", NOW_S)
    assert "for example a/p: 0/3 nodes ok tasks: 9" in str(finding)
    assert str(finding).isprintable()
    assert len(str(finding)) < 2500
