"""Which behaviour of a model server shows how many requests it processes at a time."""

import pytest

from perllm.agent.engines import NO_LOAD, Load
from perllm.agent.slot_learning import GROW_S, SlotLearning
from perllm.completions.answer import Answer


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Watch:
    return Watch()


@pytest.fixture
def learning(clock: Watch) -> SlotLearning:
    return SlotLearning(clock)


def see(learning: SlotLearning, running: int, waiting: int, looks: int = 3) -> None:
    for _ in range(looks):
        learning.see_load(Load(running, waiting), running + waiting)


def test_a_server_that_keeps_requests_waiting_is_full_with_the_most_that_it_processes(learning: SlotLearning) -> None:
    see(learning, 7, 0)
    see(learning, 8, 3, looks=2)
    assert learning.limit is None, "they may have just arrived"
    see(learning, 7, 2, looks=1)
    assert learning.limit == 8


def test_a_refusal_says_how_much_a_server_takes(learning: SlotLearning) -> None:
    for in_process in (12, 11, 12):
        learning.see_refusal(in_process)
    assert learning.limit == 11


def test_a_refusal_by_an_idle_server_is_about_its_rate(learning: SlotLearning) -> None:
    learning.see_refusal(0)
    assert learning.limit is None


@pytest.mark.parametrize(("limit", "larger"), [(1, 2), (40, 45)])
def test_a_limit_that_was_reached_without_waiting_grows_slowly(
    learning: SlotLearning, clock: Watch, limit: int, larger: int
) -> None:
    learning.see_refusal(limit)
    see(learning, limit, 0)
    assert learning.limit == limit
    clock.now_s += GROW_S
    see(learning, limit - 1, 0)
    assert learning.limit == limit, "it was not reached"
    see(learning, limit, 0)
    assert learning.limit == larger


def test_a_server_that_did_not_answer_is_learned_again(learning: SlotLearning) -> None:
    see(learning, 4, 1)
    learning.forget()
    assert learning.limit is None


def answer(sent_s: float, first_s: float, ended_s: float) -> Answer:
    return Answer(sent_s=sent_s, first_s=first_s, ended_s=ended_s)


def serve(learning: SlotLearning, slots: int, count: int, *, first_s: float = 0.1, run_s: float = 2.0) -> None:
    """Send so many requests at once to a server that starts one only when a slot is free."""
    free_s = [0.0] * slots
    answers = []
    for number in range(count):
        begun_s = free_s[number % slots]
        free_s[number % slots] = begun_s + run_s + number % 3 * 0.3
        answers.append(answer(0.0, begun_s + first_s, free_s[number % slots]))
    for one in answers:
        learning.begin(one)
    for one in sorted(answers, key=lambda one: one.ended_s or 0.0):
        learning.end(one)


@pytest.mark.parametrize("slots", [1, 4])
def test_requests_that_begin_when_others_end_show_the_slots_of_a_server_without_metrics(
    learning: SlotLearning, slots: int
) -> None:
    learning.see_load(NO_LOAD, 0)
    serve(learning, slots, 4 * slots + 4)
    assert learning.limit == slots


def test_order_says_nothing_where_requests_are_begun_at_once(learning: SlotLearning) -> None:
    learning.see_load(NO_LOAD, 0)
    serve(learning, 32, 32)
    assert learning.limit is None


def test_order_says_nothing_where_metrics_do(learning: SlotLearning) -> None:
    see(learning, 1, 0)
    serve(learning, 4, 20)
    assert learning.limit is None
