"""Which records are believed: a record is about the task that `make_task` returns, on node n, decided at 1002 s."""

import json
from typing import Any

import pytest

from perllm.api.task_status import TaskStatus
from perllm.controller.decisions import MAX_REMEMBERED, Decisions, read_decision
from perllm.controller.tracking import Tracked
from perllm.placement.decision import Decision
from unit.controller.samples import bound, make_own_decision, make_task, waiting

RECORD = make_own_decision().to_record()


def read(record: str | None) -> Decision | None:
    return read_decision(make_task(), bound(decision_record=record))


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(RECORD), **fields})


class TestRecord:
    def test_of_the_tasks_own_pod_is_believed(self) -> None:
        assert read_decision(make_task(), bound()) == make_own_decision()

    def test_of_a_pod_without_a_node_says_nothing_yet(self) -> None:
        assert read_decision(make_task(), waiting(decision_record=RECORD)) is None
        assert read(None) is None

    @pytest.mark.parametrize("field", ["task_id", "node", "model"])
    def test_about_something_else_is_not_believed(self, field: str) -> None:
        assert read(changed(**{field: "another"})) is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"decided_s": 600.0, "time_left_s": 460.0},
            {"time_left_s": 600.0},
            {"prompt_tokens": 5.0},
            {"hint_tokens": None},
        ],
        ids=["before the pod", "another deadline", "another prompt", "another hint"],
    )
    def test_made_from_something_else_is_not_believed(self, fields: dict[str, Any]) -> None:
        assert read(changed(**fields)) is None

    @pytest.mark.parametrize("text", ["", "rubbish", "[]", "{}", RECORD[:-1], "[" * 100_000])
    def test_that_is_malformed_is_not_believed(self, text: str) -> None:
        assert read(text) is None

    def test_has_clean_text(self) -> None:
        decision = read_decision(make_task(), bound(decision_record=changed(reason="best\n\x1b[2Jforged line")))
        assert decision is not None
        assert decision.reason == "best forged line"

    def test_of_a_tracked_task_is_read_once_for_each_pod_and_record(self) -> None:
        tracked = Tracked(make_task(), TaskStatus())
        decision = tracked.decision_of(bound())
        assert decision == make_own_decision()
        assert tracked.decision_of(bound()) is decision
        assert tracked.decision_of(bound(decision_record=changed(node="another"))) is None
        assert tracked.decision_of(waiting()) is None


class TestMemory:
    def test_of_what_was_bound_outweighs_what_is_written(self) -> None:
        decisions = Decisions()
        decisions.note_bound("uid-t-1", "n", RECORD)
        forged = bound(decision_record=changed(latency_s=0.1))
        assert decisions.restore(forged, None).decision_record == RECORD

    def test_is_of_the_node_whose_binding_was_carried_out_though_its_answer_was_lost(self) -> None:
        decisions = Decisions()
        decisions.note_bound("uid-t-1", "n", RECORD)
        decisions.note_bound("uid-t-1", "another", changed(node="another"))
        assert decisions.restore(bound(), None).decision_record == RECORD

    def test_of_what_was_first_read_outweighs_what_is_written_later(self) -> None:
        forged = bound(decision_record=changed(latency_s=0.1))
        assert Decisions().restore(forged, bound()).decision_record == RECORD
        assert Decisions().restore(forged, waiting()).decision_record == forged.decision_record

    def test_is_bounded_and_ends_with_the_pod(self) -> None:
        decisions = Decisions()
        for number in range(MAX_REMEMBERED + 1):
            decisions.note_bound(f"uid-{number}", "n", RECORD)
        decisions.forget("uid-2")
        forgotten = [
            decisions.restore(bound(uid=uid, decision_record=None), None).decision_record is None
            for uid in ("uid-0", "uid-1", "uid-2")
        ]
        assert forgotten == [True, False, True]
