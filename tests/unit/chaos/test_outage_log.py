from e2e.chaos.outage_log import find_logging_errors


def lines(*messages):
    return [{"message": message} for message in messages]


BEGIN, END = (
    "API server: no answer; retrying until it works",
    "API server: works again after 2.0 s and 3 failed attempts",
)


def test_an_outage_that_is_logged_once_and_ends_is_right():
    assert find_logging_errors(lines(BEGIN, "other", END, BEGIN, END), disturbances=2) == []


def test_an_outage_is_not_logged_again_before_its_end():
    (problem,) = find_logging_errors(lines(BEGIN, BEGIN, END), disturbances=2)
    assert "again before its end" in problem


def test_an_outage_whose_process_ended_needs_no_end():
    assert find_logging_errors(lines(BEGIN, "starting PerLLM 1.0", BEGIN, END), disturbances=2) == []


def test_an_outage_without_an_end_or_a_cause_is_reported():
    assert len(find_logging_errors(lines(BEGIN), disturbances=1)) == 1
    assert len(find_logging_errors(lines(BEGIN, END, BEGIN, END), disturbances=1)) == 1
