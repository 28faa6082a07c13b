import pytest

from perllm.energy.node_spans import NodeSpans
from perllm.energy.spans import FOREVER_S, Span


@pytest.fixture
def spans() -> NodeSpans:
    found = NodeSpans()
    for pod_uid, start_s, end_s in (
        ("late", 5.0, 9.0),
        ("runs", 6.0, FOREVER_S),
        ("early", 1.0, 4.0),
        ("long", 2.0, 9.0),
    ):
        found.put(Span(pod_uid, start_s, end_s))
    return found


def pods(spans: list[Span]) -> set[str]:
    return {span.pod_uid for span in spans}


def test_spans_are_found_that_overlap_a_time(spans: NodeSpans) -> None:
    assert pods(spans.select(3.0, 5.0)) == {"early", "long"}
    assert pods(spans.select(4.0, 7.0)) == {"late", "runs", "long"}
    assert pods(spans.select(9.0, 20.0)) == {"runs"}


def test_a_span_takes_the_place_of_the_earlier_one_of_its_pod(spans: NodeSpans) -> None:
    spans.put(Span("runs", 6.0, 7.0))
    spans.put(Span("long", 2.0, 3.0))
    assert [(span.pod_uid, span.end_s) for span in spans] == [
        ("long", 3.0),
        ("early", 4.0),
        ("runs", 7.0),
        ("late", 9.0),
    ]
    assert spans.begun_s == FOREVER_S


def test_what_ended_before_a_time_is_forgotten(spans: NodeSpans) -> None:
    assert spans.forget_ended(9.0) == ["early"]
    assert spans.find("early") is None
    assert pods(list(spans)) == {"late", "runs", "long"}


def test_only_a_running_task_is_forgotten_by_its_pod(spans: NodeSpans) -> None:
    assert spans.forget_running("runs")
    assert not spans.forget_running("late")
    assert pods(spans.ended) == {"early", "late", "long"}
