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


def test_a_request_that_waits_is_not_read_meanwhile() -> None:
    usual = Usage(token_s=0.01)
    assert find_readings([span("a", 1.0, 90.0, 60.0)], usual) == {"a": (59.0, 60.0)}


def test_of_a_prompt_without_a_first_token_it_is_not_known_when_it_was_read() -> None:
    assert find_readings([span("a", 1.0, 9.0, None), span("b", 1.0, 9.0, 3.0, prompt=0.0)], Usage()) == {}
    assert observe_usage([span("a", 1.0, 9.0, None)], 1.0).token_s == inf


def test_the_pace_of_reading_is_that_of_prompts_that_hardly_waited() -> None:
    lengths_s = [1.0, *(1.0 + 0.1 * index for index in range(40)), 0.01]
    runs = [span(str(index), 10.0 * index, 10.0 * index + 9, 10.0 * index + one) for index, one in enumerate(lengths_s)]
    assert observe_usage(runs, 1.0).token_s == pytest.approx(0.01, rel=0.1)


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


def test_prompts_of_running_tasks_are_expected_to_be_read_one_after_the_other() -> None:
    running = [Span("a", 2.0, inf, 200.0), Span("b", 2.1, inf, 100.0)]
    readings = [window.phases[1] for window in weigh([*running, span("c", 0.0, 9.0, 2.5)], Usage(token_s=0.01))]
    assert [(one.start_s, one.end_s) for one in readings[:2]] == [(2.5, 4.5), (4.5, 5.5)]


def test_a_task_that_was_ended_before_it_said_how_far_it_came_weighs_as_much_as_the_others() -> None:
    decoder, ended = weigh([span("a", 0.0, 9.0, 1.0), Span("b", 0.0, 9.0, 100.0)], Usage(token_s=0.01))
    assert ended.weight == decoder.weight


def test_its_prompt_is_not_read_after_its_end() -> None:
    [_, ended] = weigh([span("a", 0.0, 9.0, 3.0), Span("b", 2.0, 3.5, 100.0)], Usage(token_s=0.01))
    assert [(phase.start_s, phase.end_s) for phase in ended.phases] == [(2.0, 3.0), (3.0, 3.5), (3.5, 3.5)]


def test_a_short_prompt_takes_as_long_as_an_iteration() -> None:
    usual = Usage(token_s=0.001, iteration_s=0.05)
    short, long = span("a", 1.0, 9.0, 3.0, prompt=10.0), span("b", 4.0, 9.0, 6.0, prompt=300.0)
    assert find_readings([short, long], usual) == {"a": (pytest.approx(2.95), 3.0), "b": (pytest.approx(5.7), 6.0)}


def test_an_iteration_takes_as_long_as_tokens_of_tasks_next_to_which_few_prompts_were_read() -> None:
    paces_s = [0.02, *(0.02 + 0.001 * index for index in range(40)), 0.001]
    runs = [
        span(str(index), 10.0 * index, 10.0 * index + 1.0 + 100 * one, 10.0 * index + 1.0)
        for index, one in enumerate(paces_s)
    ]
    assert observe_usage(runs, 1.0).iteration_s == pytest.approx(0.02, rel=0.1)


def test_a_task_does_not_decode_while_other_prompts_are_read() -> None:
    """Both write 100 tokens; one takes 4 s, the other 2 s longer, in which two prompts were read."""
    tasks = [span("a", 0.0, 5.0, 1.0), span("b", 10.0, 17.0, 11.0)]
    readers = [span("c", 11.5, 40.0, 12.5), span("d", 13.0, 41.0, 14.0)]
    first, second, *_ = weigh([*tasks, *readers], Usage(token_s=0.01))
    assert first.weight == pytest.approx(second.weight)


def test_a_prompt_that_is_read_draws_its_own_power_on_its_gpu() -> None:
    tasks = [span("a", 2.0, 9.0, 3.0), span("b", 0.0, 9.0, 1.0)]
    alone, _ = weigh(tasks, Usage(occupancy=2.0, reading_power=2.0))
    shared, decoder = weigh(tasks, Usage(occupancy=2.0, gpus=2.0, reading_power=2.0))
    assert [phase.power for phase in alone.phases] == [1.0, 2.0, 1.0]
    assert [phase.power for phase in shared.phases] == [1.0, 1.5, 1.0]
    usual = (shared.weight + decoder.weight) / 2
    assert shared.phases[1].weight == pytest.approx(2 * usual)
