"""What a developer asks about a task, and the answer."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from perllm.cluster.client import Object
from perllm.overview.explanation import CAUSES, explain_task
from perllm.overview.reading import read_task
from unit.overview.objects import CREATED_S, make_condition, make_done, make_placed, make_task

NOW_S = CREATED_S + 5.0
DOCUMENTATION = (Path(__file__).parents[3] / "docs/tasks.md").read_text("utf-8")
OTHER = {"node": "h100-1", "gpuType": "H100", "hitChance": 0.99, "predictedLatency": 1.5, "predictedEnergy": 900.0}


def explain(item: Object, models: Sequence[str] = (), now_s: float = NOW_S) -> str:
    return "\n".join(explain_task(read_task(item), now_s, models))


def test_what_became_of_it_comes_first() -> None:
    assert explain(make_done()).startswith(
        "Task team/hello (chat): in time, complete after 3.00 s of 10 s; energy: 250 J (measured)\n"
    )
    assert "LATE, complete after 12.0 s of 10 s" in explain(make_done(latency_s=12.0))
    assert "energy: not measured" in explain(make_done(energy_j=None))


def test_where_when_and_why() -> None:
    placed = make_condition("Scheduled", "True", "Placed", "highest net value, of 2 candidates")
    text = explain(make_placed(conditions=[placed]))
    assert "Where     t4-1 (edge, T4), as a request to its model server" in text
    assert "When      placed at once, 0.10 s after its creation" in text
    assert "Why       by cs-ucb: highest net value, of 2 candidates" in text


def test_what_keeps_a_placed_task_from_running_is_quoted() -> None:
    stuck = make_placed(phase="Scheduled", message="the pod is starting: ImagePullBackOff: no such image")
    assert "  Now       the pod is starting: ImagePullBackOff: no such image" in explain(stuck).splitlines()


def test_prompts_without_an_answer_are_counted() -> None:
    text = explain(make_done(message="2 of 10 prompts were not answered"))
    assert "energy: 250 J (measured); 2 of 10 prompts were not answered\n" in text


def test_what_it_waited_for() -> None:
    waited = {"waited": 4.0, "waitedFor": "waiting: a node without room is worth more than those with room"}
    assert "placed 4.00 s after its creation; until then it waited: a node without room is worth more" in explain(
        make_placed(decision=waited)
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"lostBy": "energy", "hasRoom": True}, "it would have cost more energy"),
        ({"lostBy": "energy", "hasRoom": False}, "it had no room"),
        ({"hasRoom": True}, "it was no better"),
    ],
)
def test_why_not_elsewhere(fields: dict[str, object], why: str) -> None:
    text = explain(make_placed(decision={"alternatives": [OTHER | fields]}))
    assert f"    h100-1 (H100)    99.0%   1.50 s   900 J  {why}" in text


def test_excluded_nodes_have_their_cause_in_words() -> None:
    text = explain(make_placed(decision={"rejected": {"late": 3, "compute": 1}}))
    assert "Excluded  3 nodes where it would probably have been late; 1 node without a free slot" in text


def test_what_kube_scheduler_would_have_done() -> None:
    text = explain(make_placed(decision={"counterfactual": {"node": "t4-1", "predictedLatency": 2.0}}))
    assert "plain kube-scheduler would have taken the same node: 2.00 s, ?, ? in time" in text


def test_the_prediction_stands_next_to_the_outcome() -> None:
    lines = explain(make_done()).splitlines()
    assert "  time     2.00 s (1.00 s to 4.00 s)  3.00 s" in lines
    assert "  in time  98.0%                      yes" in lines
    assert "  energy   300 J                      250 J (measured)" in lines
    assert "  answer   100 tokens                 90 tokens" in lines


def test_what_explains_a_long_time() -> None:
    text = explain(make_done(latency_s=8.0, observed={"latency": 8.0, "tokens": 300, "queue": 5.0}))
    assert "The answer was 3.0 times as long as expected." in text
    assert "It took longer than 19 in 20 such tasks were expected to." in text
    assert "5.00 s of its time passed before it began to run." in text
    assert "expected." not in explain(make_done())


def test_a_waiting_task_says_what_it_waits_for_and_what_is_offered() -> None:
    why = make_condition(
        "Scheduled", "False", "NoModelServer", "waiting: no node satisfies: a ready model server of chat"
    )
    waiting = make_task(phase="Pending", message=why["message"], conditions=[why])
    text = explain(waiting, models=["chat-2", "code"])
    assert "waiting, 5.00 s of 10 s have passed\n" in text
    assert "It is waiting: no node satisfies: a ready model server of chat (NoModelServer)" in text
    assert "No model server offers chat now; they offer chat-2, code." in text
    assert "its deadline has passed" in explain(waiting, now_s=CREATED_S + 11.0)


def test_a_task_with_a_pod_needs_no_model_server() -> None:
    why = make_condition("Scheduled", "False", "Waiting", "waiting for its turn")
    text = explain(make_task(spec={"template": {}}, phase="Pending", conditions=[why]), models=["code"])
    assert "It is waiting for its turn (Waiting)" in text
    assert "model server" not in text


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_a_task_that_was_placed_without_a_decision_does_not_wait(phase: str) -> None:
    placed = make_condition("Scheduled", "True", "Placed", "bound without a decision by PerLLM")
    text = explain(make_task(phase=phase, nodeName="t4-1", conditions=[placed]))
    assert "Where     t4-1, and why is not known" in text
    assert "waiting" not in text
    assert "not placed" not in text


def test_a_task_that_no_operator_has_seen_says_so() -> None:
    assert "PerLLM has not picked it up" in explain(make_task())


def test_a_rejected_task_has_its_reason() -> None:
    text = explain(make_task(phase="Rejected", message="no node is likely to be in time"))
    assert "rejected: no node is likely to be in time" in text
    assert "It was not placed on any node." in text


def test_every_cause_has_words_and_is_in_the_documentation() -> None:
    table = DOCUMENTATION.partition("counts the excluded nodes")[2].partition("Earlier versions")[0]
    assert {cause for row in table.splitlines() for cause in re.findall("`([a-z-]+)`", row.partition(" | ")[0])} == set(
        CAUSES
    )
