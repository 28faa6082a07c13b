import dataclasses
from math import inf

import pytest

from e2e.audit import Change
from e2e.chaos.evidence import Run, Story
from e2e.chaos.injector import Injected
from e2e.chaos.invariants import find_repetitions
from e2e.chaos.plan import Fault, FaultKind
from e2e.chaos.reports import AGENT_USER, Disturbance, Report, list_disturbances, read_reports, read_requests
from e2e.chaos.served_invariants import (
    count_wasted,
    find_late_releases,
    find_repeated_outages,
    find_report_errors,
    find_unfounded_failures,
)
from perllm_lab.installation import OPERATOR_USER

RUN = Run("ns/a", "edge-0", "Succeeded", 10.0, 12.0, 12.1, ())
REPORT = Report("ns/a", "uid", 1, 1, "edge-0", "Answered", 10.0, 12.0, 12.1)
STATUS = {"phase": "Succeeded", "attempts": 1, "run": {"attempt": 1}, "receivedTime": "1970-01-01T00:00:05Z"}
LINE = {"kind": "request", "task": "ns/a", "node": "edge-0", "outcome": "Succeeded"}
DENIAL = {"kind": "Status", "status": "Failure"}
OUTAGE = "2026-01-01 WARNING perllm.cluster.outages: API server: no answer; retrying until it works"


def story(*runs, spec=None, **status):
    task = {"metadata": {"uid": "uid"}, "spec": {"deadline": "6s", **(spec or {})}, "status": {**STATUS, **status}}
    return Story("ns/a", task, exists=True, is_expired=False, is_removed=False, runs=runs or (RUN,))


def truth(begun, ended, **fields):
    stamps = {name: f"1970-01-01T00:00:{second:02}+00:00" for name, second in (("created", begun), ("finished", ended))}
    return {**LINE, **stamps, **fields}


def change(**fields):
    run = {"attempt": 1, "end": "Answered", "startTime": "1970-01-01T00:00:10Z", "endTime": "1970-01-01T00:00:12Z"}
    status = {"nodeName": "edge-0", "attempts": 1, "run": run}
    stored = {"kind": "LLMInferenceTask", "metadata": {"uid": "uid"}, "status": status}
    one = Change("r", 12.1, AGENT_USER, "patch", "llminferencetasks/status", "ns/a", 200, {}, stored)
    return dataclasses.replace(one, **fields)


def test_a_report_that_is_repeated_because_its_answer_was_lost_counts_once():
    assert read_reports(
        [change(), change(request="s", asked_s=13.0), change(code=422, stored=DENIAL), change(code=0, stored={})]
    ) == [REPORT]


def test_a_report_that_a_killed_api_server_has_not_logged_is_seen_in_what_the_operator_writes():
    assert read_reports([change(code=0, stored={}), change(user=OPERATOR_USER)]) == [REPORT]


def test_a_request_succeeds_only_with_a_stored_answer():
    first, second = read_requests([truth(20, 22), truth(10, 12)], [REPORT], [])
    assert first == RUN
    assert (second.outcome, second.known_s) == ("Unreported", inf)
    assert count_wasted([story(first, second)]) == 1


@pytest.mark.parametrize("end", ["Failed", "Unavailable"])
def test_a_request_whose_server_was_lost_has_failed(end):
    report = dataclasses.replace(REPORT, end=end)
    (run,) = read_requests([truth(10, 12, outcome="Lost")], [report], [])
    assert run.outcome == "Failed"


def test_a_request_is_made_again_only_if_its_agent_or_its_status_was_hit():
    lines, elsewhere = [truth(10, 12), truth(20, 22)], frozenset({"edge-1"})
    killed = Disturbance(11.0, 13.0, "kill agents", frozenset({"edge-0"}))
    edited = Disturbance(11.0, 11.0, "its status was edited", frozenset(), "ns/a")
    excused = ([killed], [edited])
    wrong = ([], [dataclasses.replace(killed, nodes=elsewhere)], [dataclasses.replace(edited, task="ns/b")])
    for disturbances in excused:
        assert find_repetitions([story(*read_requests(lines, [], disturbances))]) == []
    for disturbances in wrong:
        assert len(find_repetitions([story(*read_requests(lines, [], disturbances))])) == 1


@pytest.mark.parametrize(("restored_s", "problems"), [(9.5, 1), (10.5, 0), (inf, 0)])
def test_an_edited_status_excuses_a_second_request_until_the_operator_has_restored_it(restored_s, problems):
    edit = change(user="admin", asked_s=9.0)
    restored = change(user=OPERATOR_USER, asked_s=restored_s)
    runs = read_requests([truth(10, 12), truth(20, 22)], [], list_disturbances([], [edit, restored], []))
    assert len(find_repetitions([story(*runs)])) == problems


@pytest.mark.parametrize(("killed_s", "problems"), [(None, 1), (12.5, 1), (14.0, 0), (16.0, 1)])
def test_a_stored_answer_is_lost_only_if_the_operator_ends_before_it_restores_an_edited_status(killed_s, problems):
    edit, restored = change(user="admin", asked_s=13.0), change(user=OPERATOR_USER, asked_s=15.0)
    kill = Fault(0.0, FaultKind.KILL, "operator", 0.3, 0.0)
    injected = [] if killed_s is None else [Injected(kill, killed_s, killed_s + 0.3, "operator")]
    runs = read_requests([truth(10, 12), truth(20, 22)], [REPORT], list_disturbances(injected, [edit, restored], []))
    assert len(find_repetitions([story(*runs)])) == problems


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([dataclasses.replace(REPORT, current=2)], {}),
        ([REPORT, dataclasses.replace(REPORT, ended_s=12.5)], {}),
        ([REPORT, dataclasses.replace(REPORT, attempt=2, current=2)], {}),
        ([REPORT], {"attempts": 2}),
    ],
)
def test_one_result_of_the_current_attempt_is_accepted(reports, status):
    assert find_report_errors([story()], [REPORT]) == []
    assert len(find_report_errors([story(**status)], reports)) == 1


def test_a_task_fails_only_at_a_deadline_that_ends_it_or_with_its_server():
    ended = {"conditions": [{"type": "Completed", "reason": "DeadlineExceeded"}]}
    terminated = {"onDeadlineMissed": "Terminate"}
    lost = dataclasses.replace(RUN, outcome="Failed")
    assert find_unfounded_failures([story(), story(lost, phase="Failed")]) == []
    assert find_unfounded_failures([story(phase="Failed", spec=terminated, **ended)]) == []
    assert len(find_unfounded_failures([story(phase="Failed", **ended), story(phase="Failed")])) == 2


def test_a_slot_is_free_soon_after_the_deadline_that_ends_a_task():
    terminated = story(spec={"onDeadlineMissed": "Terminate"})
    late = story(dataclasses.replace(RUN, finished_s=15.0), spec={"onDeadlineMissed": "Terminate"})
    assert find_late_releases([terminated], [], []) == []
    assert len(find_late_releases([late], [], [])) == 1
    assert find_late_releases([late], [], [(12.0, 14.0)]) == []
    assert find_late_releases([story(dataclasses.replace(RUN, finished_s=15.0))], [], []) == []


def test_agents_that_share_a_log_report_each_outage_once_each():
    assert find_repeated_outages([OUTAGE] * 4, agents=2, disturbances=2) == []
    assert len(find_repeated_outages([OUTAGE] * 5, agents=2, disturbances=2)) == 1
