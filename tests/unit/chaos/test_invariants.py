import dataclasses

import pytest

from e2e.audit import Change
from e2e.chaos.evidence import Run, Story, read_runs, read_stories
from e2e.chaos.invariants import (
    find_contradictions,
    find_learning_errors,
    find_leftovers,
    find_losses,
    find_repetitions,
)
from perllm.learning.node_state import pack
from perllm.learning.recent import CAPACITY
from perllm_lab.installation import OPERATOR_USER

SUCCESS = Run("ns/a", "edge-0", "Succeeded", 10.0, 12.0, 12.1, ())
AGAIN = dataclasses.replace(SUCCESS, started_s=20.0, finished_s=22.0, known_s=22.1)
TASK = {
    "metadata": {"uid": "12345678-1234-1234"},
    "spec": {"deadline": "30s"},
    "status": {"phase": "Succeeded", "receivedTime": "1970-01-01T00:00:00Z"},
}
STORY = Story("ns/a", TASK, exists=True, is_expired=False, is_removed=False, runs=(SUCCESS,))


def story(phase="Succeeded", *, runs=(SUCCESS,), **fields):
    task = TASK | {"status": TASK["status"] | {"phase": phase}}
    return dataclasses.replace(STORY, task=task, runs=tuple(runs), **fields)


def profile(*uids, outcomes=None):
    state = {"policy": "p", "gpuType": "g", "models": [], "recent": [uid[:13] for uid in uids]}
    state["recentTimes"] = [1.0] * len(uids)
    count = len(uids) if outcomes is None else outcomes
    return {"status": {"outcomes": count, "schemaVersion": 3, "state": {"data": pack(state)}}}


def change(kind, verb, key, *, user="admin", asked_s=11.0, code=200, **body):
    return Change(f"{asked_s}", asked_s, user, verb, kind, key, code, body.get("sent", {}), body.get("stored", {}))


@pytest.mark.parametrize(
    ("one", "is_lost"),
    [
        (story(), False),
        (story("Running"), True),
        (story(exists=False, is_expired=True), False),
        (story("Running", exists=False, is_expired=True), True),
        (story("Running", exists=False, is_removed=True), False),
        (story(exists=False), True),
    ],
)
def test_a_task_is_lost_unless_it_has_ended_or_somebody_deleted_it(one, is_lost):
    assert bool(find_losses([one])) is is_lost


@pytest.mark.parametrize(
    ("first", "is_wrong"),
    [
        (SUCCESS, True),
        (dataclasses.replace(SUCCESS, outcome="Failed"), False),
        (dataclasses.replace(SUCCESS, outcome="Deleted"), True),
        (dataclasses.replace(SUCCESS, hits=("delete of its pod by admin",)), False),
    ],
)
def test_a_container_is_started_again_only_after_a_failure_or_a_hit(first, is_wrong):
    assert bool(find_repetitions([story(runs=(first, AGAIN))])) is is_wrong


def test_a_phase_contradicts_what_really_happened():
    assert find_contradictions([story()], []) == []
    assert len(find_contradictions([story(runs=())], [])) == 1
    assert len(find_contradictions([story("Failed")], [])) == 1
    assert find_contradictions([story("Failed")], [(11.0, 13.0)]) == []


def test_every_success_is_learned_once_on_its_node():
    uid = STORY.uid
    assert find_learning_errors([story()], {"edge-0": profile(uid)}, [], []) == []
    assert "was not learned" in find_learning_errors([story()], {"edge-0": profile()}, [], [])[0]
    twice = {"edge-0": profile(uid), "edge-1": profile(uid)}
    assert "was learned on" in find_learning_errors([story()], twice, [], [])[-1]
    assert "counts 2 outcomes" in find_learning_errors([story()], {"edge-0": profile(uid, outcomes=2)}, [], [])[0]


def test_an_outcome_is_known_by_the_count_once_later_runs_have_taken_the_place_of_its_id():
    ended_at_their_deadlines = [f"{number:08x}-1234" for number in range(CAPACITY)]
    assert find_learning_errors([story()], {"edge-0": profile(*ended_at_their_deadlines, outcomes=1)}, [], []) == []


def test_a_task_that_failed_though_a_run_succeeded_too_late_is_known_by_id_and_is_no_outcome():
    failed = story("Failed")
    failed.task["metadata"] = {"uid": "00000000-1234-1234"}
    named = [f"{number:08x}-1234" for number in range(CAPACITY)]
    assert find_learning_errors([story(), failed], {"edge-0": profile(*named, outcomes=1)}, [], []) == []


def test_an_outcome_may_be_forgotten_only_if_the_operator_was_away_while_its_profile_did_not_exist():
    deletion = change("llmnodeprofiles", "delete", "edge-0", asked_s=15.0)
    written = change("llmnodeprofiles/status", "patch", "edge-0", user="perllm", asked_s=17.0)
    empty = {"edge-0": profile()}
    assert find_learning_errors([story()], empty, [deletion, written], [(16.0, 20.0)]) == []
    assert find_learning_errors([story()], empty, [deletion, written], [(10.0, 15.5)]) == []
    assert len(find_learning_errors([story()], empty, [deletion, written], [(18.0, 20.0)])) == 1


def test_a_pod_that_is_left_over_is_found():
    pod = {
        "metadata": {"namespace": "ns", "name": "a-1", "ownerReferences": [{"name": "a"}]},
        "status": {"phase": "Succeeded"},
    }
    assert find_leftovers([pod], {"ns/a": TASK}) == []
    assert len(find_leftovers([pod], {})) == 1
    retained = pod | {"metadata": pod["metadata"] | {"finalizers": ["perllm.io/outcome"]}}
    assert len(find_leftovers([retained], {"ns/a": TASK})) == 1


LINE = {
    "kind": "pod",
    "namespace": "ns",
    "pod": "a-1",
    "task": "a",
    "node": "edge-0",
    "outcome": "Succeeded",
    "created": "1970-01-01T00:00:10Z",
    "started": "1970-01-01T00:00:11Z",
    "finished": "1970-01-01T00:00:20Z",
}
END = change("pods/status", "patch", "ns/a-1", user="lab-nodes", asked_s=25.0, sent={"status": {"phase": "Succeeded"}})


@pytest.mark.parametrize(
    ("hit", "counts"),
    [
        (change("pods", "delete", "ns/a-1", asked_s=24.0), True),
        (change("pods", "delete", "ns/a-1", asked_s=26.0), False),
        (change("pods", "delete", "ns/a-1", asked_s=24.0, user="perllm"), False),
        (change("pods", "delete", "ns/a-1", asked_s=24.0, code=404), False),
        (change("pods", "patch", "ns/a-1", asked_s=26.0), True),
        (change("nodes", "delete", "edge-0", asked_s=15.0), True),
        (change("nodes", "delete", "edge-1", asked_s=15.0), False),
    ],
)
def test_a_hit_counts_if_it_came_from_others_before_the_end_was_known(hit, counts):
    (run,) = read_runs([LINE], [hit, END])
    assert bool(run.hits) is counts


def test_a_container_that_was_stopped_before_it_started_has_not_run():
    assert read_runs([LINE | {"started": LINE["finished"]}], []) == []


def test_the_last_status_counts_even_if_it_was_never_answered():
    created = change(
        "llminferencetasks",
        "create",
        "ns",
        stored={
            "kind": "LLMInferenceTask",
            "metadata": {"namespace": "ns", "name": "a", "uid": "u"},
        },
    )
    sent = {"status": {"phase": "Succeeded"}}
    unanswered = change(
        "llminferencetasks/status", "patch", "ns/a", user=OPERATOR_USER, asked_s=12.0, code=504, sent=sent
    )
    (one,) = read_stories(["ns/a"], {}, [], [created, unanswered])
    assert (one.uid, one.status) == ("u", {"phase": "Succeeded"})
