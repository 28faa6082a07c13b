from math import inf

import pytest

from perllm.energy.spans import Span, Usage, find_readings, observe_usage, weigh


def span(name: str, start_s: float, end_s: float, first_token_s: float | None, prompt: float = 100.0) -> Span:
    return Span(name, start_s, end_s, prompt, 100.0, first_token_s)


def test_a_prompt_is_read_from_the_request_to_the_first_token() -> None:
    assert find_readings([span("a", 1.0, 9.0, 3.0)], Usage()) == {"a": (1.0, 3.0)}


def test_prompts_are_read_one_after_the_other() -> None:
    both = [span("a", 1.0, 9.0, 3.0), span("b", 2.0, 9.0, 5.0)]
    assert find_readings(both, Usage()) == {"a": (1.0, 3.0), "b": (3.0, 5.0)}


def test_two_gpus_read_two_prompts_at_the_same_time() -> None:
    three = [span("a", 1.0, 9.0, 3.0), span("b", 2.0, 9.0, 5.0), span("c", 2.5, 9.0, 6.0)]
    assert find_readings(three, Usage(gpus=2.0)) == {"a": (1.0, 3.0), "b": (2.0, 5.0), "c": (3.0, 6.0)}


def test_a_request_that_waits_for_a_place_is_not_read_meanwhile() -> None:
    usual = Usage(token_s=0.01)
    assert find_readings([span("a", 1.0, 90.0, 60.0)], usual) == {"a": (57.0, 60.0)}


def test_of_a_prompt_without_a_first_token_it_is_not_known_when_it_was_read() -> None:
    assert find_readings([span("a", 1.0, 9.0, None), span("b", 1.0, 9.0, 3.0, prompt=0.0)], Usage()) == {}
    assert observe_usage([span("a", 1.0, 9.0, None)], 1.0).token_s == inf


def test_the_usual_pace_of_reading_is_the_median() -> None:
    runs = [
        span(str(index), 10.0 * index, 10.0 * index + 9, 10.0 * index + length)
        for index, length in enumerate((1, 2, 8))
    ]
    assert observe_usage(runs, 1.0).token_s == pytest.approx(0.02)


def test_while_a_prompt_is_read_the_others_weigh_nearly_nothing() -> None:
    reader, decoder = weigh([span("a", 2.0, 9.0, 3.0), span("b", 0.0, 9.0, 1.0)], Usage(occupancy=2.0))
    reading = reader.phases[1]
    assert (reading.start_s, reading.end_s) == (2.0, 3.0)
    assert reading.weight > 100 * decoder.weight


def test_a_reader_has_one_of_several_gpus() -> None:
    reader, decoder = weigh([span("a", 2.0, 9.0, 3.0), span("b", 0.0, 9.0, 1.0)], Usage(occupancy=2.0, gpus=2.0))
    assert reader.phases[1].weight == pytest.approx((reader.weight + decoder.weight) / 2)


def test_a_running_task_is_expected_to_have_read_its_prompt_after_the_ones_before_it() -> None:
    usual = Usage(token_s=0.01)
    [window, _] = weigh([Span("a", 2.0, inf, 200.0), span("b", 0.0, 9.0, 2.5)], usual)
    reading = window.phases[1]
    assert (reading.start_s, reading.end_s) == (2.5, 4.5)
