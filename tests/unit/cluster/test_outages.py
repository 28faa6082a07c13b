"""One line for an outage, one for its end."""

import logging

import pytest

from perllm.cluster.outages import SETTLED_S, WARM_UP_S, Outages


def test_an_outage_is_two_lines_however_often_it_was_tried(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    outages.worked("API server")
    for _ in range(1000):
        outages.failed("API server", "connection refused")
    now_s = 90.0
    outages.worked("API server")
    outages.worked("API server")
    assert [record.getMessage() for record in caplog.records] == [
        "API server: connection refused; retrying until it works",
        "API server: works again after 90.0 s and 1000 failed attempts",
    ]


def test_topics_are_apart(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages(lambda: 0.0)
    outages.failed("watch of pods", "403 Forbidden")
    outages.failed("API server", "connection refused")
    outages.worked("watch of pods")
    assert "API server" in outages
    assert "watch of pods" not in outages


def test_an_api_server_that_is_away_is_one_outage_for_all_who_ask_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    topics = ("watch of pods", "watch of nodes", "reading the lease")
    for topic in topics * 9:
        outages.failed(topic, "connection refused", is_unanswered=True)
    outages.failed("API server", "connection refused")
    now_s = SETTLED_S
    for topic in (*topics, "API server"):
        assert len(caplog.records) == 1
        outages.worked(topic)
    assert caplog.messages[1:] == ["API server: works again after 2.0 s and 28 failed attempts"]


def test_a_topic_that_is_not_tried_any_more_keeps_no_outage_alive(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = [0.0]
    outages = Outages(lambda: clock[0])
    for topic in ("watch", "gone"):
        outages.failed(topic, "refused", is_unanswered=True)
    outages.failed("denied", "forbidden")
    outages.forget("gone")
    outages.forget("denied")
    clock[0] = 60.0
    outages.worked("watch")
    assert caplog.messages[-1].startswith("API server: works again")
    outages.failed("watch", "refused", is_unanswered=True)
    assert caplog.messages[-1].startswith("API server: refused")


def test_an_outage_of_what_is_given_up_and_tried_for_others_is_logged_once_with_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    for now_s in (0.0, 1.0, 2.0):  # noqa: B007
        outages.failed("writing", "denied")
        outages.forget("writing")
    now_s += SETTLED_S
    outages.worked("another")
    assert caplog.messages[1:] == ["writing: is no longer tried after 2.0 s and 3 failed attempts"]


def test_what_was_given_up_works_again_if_it_is_tried_for_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    outages.failed("writing", "denied")
    outages.forget("writing")
    now_s = SETTLED_S
    outages.worked("writing")
    assert caplog.messages[1:] == ["writing: works again after 0.0 s and 1 failed attempts"]


def test_an_api_server_that_answers_now_and_then_while_it_shuts_down_is_one_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    for now_s in (0.0, 0.5, 1.0):  # noqa: B007
        outages.failed("writing status", "connection refused", is_unanswered=True)
        outages.worked("writing status")
    assert len(caplog.messages) == 1
    now_s = 3.0
    outages.worked("watch of pods")
    assert caplog.messages[1:] == ["API server: works again after 1.0 s and 3 failed attempts"]


def test_an_api_server_that_starts_again_and_denies_everything_is_the_same_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    outages.failed("watch of pods", "connection refused", is_unanswered=True)
    outages.failed("watch of pods", "403 Forbidden")
    outages.failed("writing status", "403 Forbidden")
    now_s = SETTLED_S
    outages.worked("writing status")
    outages.worked("watch of pods")
    assert caplog.messages[1:] == ["API server: works again after 2.0 s and 3 failed attempts"]


def test_what_is_still_denied_later_is_an_outage_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    outages = Outages(lambda: now_s)
    for topic in ("watch of pods", "watch of nodes"):
        outages.failed(topic, "connection refused", is_unanswered=True)
    for now_s in (1.0, WARM_UP_S, WARM_UP_S + 1.0, 2 * WARM_UP_S, 3 * WARM_UP_S):  # noqa: B007
        outages.failed("watch of pods", "403 Forbidden")
    now_s += SETTLED_S
    outages.worked("watch of pods")
    outages.worked("watch of nodes")
    assert [message.partition(" after")[0] for message in caplog.messages] == [
        "API server: connection refused; retrying until it works",
        "watch of pods: 403 Forbidden; retrying until it works",
        "watch of pods: works again",
        "API server: works again",
    ]
