"""What a run that took from 1002 s to 1010 s cannot have done."""

from typing import Any

import pytest

from perllm.api.task_status import TaskStatus
from perllm.cluster.pod import Timing
from perllm.controller.evidence import find_fault
from perllm.controller.lifecycle import advance
from perllm.learning.outcome import ImplausibleFigure
from perllm.placement.decision import Decision
from unit.controller.samples import make_own_decision, make_task, succeeded

SOUND = {"transferSeconds": 1.0, "inferenceSeconds": 6.0, "promptTokens": 900, "outputTokens": 80, "text": "Blue."}


DECISION = make_own_decision()


def fault_of(report: dict[str, Any], decision: Decision | None = DECISION, **fields: Any) -> ImplausibleFigure | None:
    task, pod = make_task(), succeeded(report=report, **fields)
    observed = advance(task, TaskStatus(), [pod], 1010.5).status.observed
    assert observed is not None
    return find_fault(task.received_s + (observed.latency or 0.0), observed, pod, decision)


@pytest.mark.parametrize("report", [SOUND, {}, {"outputTokens": 5}, {"inferenceSeconds": 6.0}])
def test_a_run_that_may_be_true_is_evidence(report: dict[str, Any]) -> None:
    assert fault_of(report) is None


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        ({"outputTokens": 0}, ImplausibleFigure.TOKENS),
        ({"outputTokens": 0, "inferenceSeconds": 0.01, "text": ""}, ImplausibleFigure.TOKENS),
        ({"inferenceSeconds": 11.0}, ImplausibleFigure.TIME),
        ({"transferSeconds": 600.0}, ImplausibleFigure.TIME),
        ({"outputTokens": 900_000}, ImplausibleFigure.TOKENS),
        ({"outputTokens": 80, "inferenceSeconds": 0.0}, ImplausibleFigure.TOKENS),
    ],
)
def test_an_impossible_run_is_not_evidence_and_says_why(report: dict[str, Any], fault: str) -> None:
    assert fault_of({**SOUND, **report}) == fault


def test_a_run_that_ended_before_it_was_placed_is_not_evidence() -> None:
    assert fault_of({}, finished_s=1001.0) == ImplausibleFigure.TIME


def test_a_run_whose_times_are_unknown_is_not_evidence() -> None:
    assert fault_of(SOUND, timing=Timing.UNKNOWN) == ImplausibleFigure.TIME


def test_a_run_with_the_decision_of_another_task_is_not_evidence() -> None:
    assert fault_of(SOUND, None) is ImplausibleFigure.DECISION
