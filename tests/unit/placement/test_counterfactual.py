"""What a task took, next to what was expected of it elsewhere."""

import numpy as np
import pytest

from perllm.placement.counterfactual import Circumstances, Ending, Prospect, Savings, revise
from perllm.placement.flight import Residence
from perllm.placement.savings import SavedUnit
from unit.placement.cluster_of import make_node, make_setting
from unit.placement.records import USUAL, make_decision

COSTLY = Prospect(
    node="k", gpu_type="A100", at_s=1002.0, forecast=make_decision(fixed_j=200.0, token_j=8.0, fixed_s=20.0).forecast
)
"""Twice the energy of the usual forecast, and too late: the usual one is 100 J and 4 J a token after 2 s."""


def note_many(
    savings: Savings, *, is_met: bool = True, energy_j: float | None = 500.0, other: Prospect = COSTLY
) -> None:
    for _ in range(20):
        savings.note(
            Ending(
                real=USUAL.to_prospect(),
                other=other,
                output_tokens=100.0,
                due_s=1010.0,
                is_met=is_met,
                took_s=4.0 if is_met else 9.0,
                energy_j=energy_j,
            )
        )


def test_in_active_mode_what_kube_scheduler_would_have_taken_more_is_saved() -> None:
    savings = Savings(is_shadow=False)
    note_many(savings)
    assert savings.of(SavedUnit.JOULES).total == pytest.approx(20 * 500.0)
    assert savings.of(SavedUnit.DEADLINES).total == pytest.approx(20.0, abs=0.3)


def test_in_shadow_mode_the_same_tasks_would_have_been_worse_off_with_perllm() -> None:
    savings = Savings(is_shadow=True)
    note_many(savings)
    assert savings.of(SavedUnit.JOULES).total == pytest.approx(-20 * 500.0)
    assert savings.of(SavedUnit.DEADLINES).total == pytest.approx(-20.0, abs=0.3)


def test_a_task_whose_energy_is_not_known_counts_for_deadlines_only() -> None:
    savings = Savings(is_shadow=False)
    note_many(savings, energy_j=None)
    assert (savings.of(SavedUnit.JOULES).tasks, savings.of(SavedUnit.DEADLINES).tasks) == (0, 20)


def test_the_same_node_saves_nothing() -> None:
    savings = Savings(is_shadow=False)
    note_many(savings, is_met=False, energy_j=5000.0, other=USUAL.to_prospect())
    assert (savings.of(SavedUnit.JOULES).total, savings.of(SavedUnit.DEADLINES).total) == (0.0, 0.0)


def test_one_absurd_reading_of_a_meter_does_not_outweigh_all_tasks() -> None:
    savings = Savings(is_shadow=False)
    for _ in range(10):
        note_many(savings)
    one = Ending(
        real=USUAL.to_prospect(), other=COSTLY, output_tokens=100.0, due_s=1010.0, is_met=True, took_s=4.0, energy_j=1e9
    )
    savings.note(one)
    assert savings.of(SavedUnit.JOULES).total == pytest.approx(201 * 500.0, rel=0.2)


def test_a_rejected_task_saves_its_energy_and_costs_the_deadline_that_it_might_have_met() -> None:
    savings = Savings(is_shadow=False)
    note_many(savings)
    before = {unit: savings.of(unit).total for unit in SavedUnit}
    quick = USUAL.to_prospect()
    savings.note(
        Ending(real=None, other=quick, output_tokens=100.0, due_s=1010.0, is_met=False, took_s=None, energy_j=0.0)
    )
    assert savings.of(SavedUnit.JOULES).total - before[SavedUnit.JOULES] == pytest.approx(500.0)
    assert savings.of(SavedUnit.DEADLINES).total - before[SavedUnit.DEADLINES] == pytest.approx(-1.0, abs=0.1)


def others_s(
    output_tokens: float,
    met_s: float | None,
    *,
    fixed_s: float = 0.0,
    reading_share: float = 0.0,
    pace: float = 1.0,
) -> float:
    """Return for how long prompts of others hold up a run that has met 2,000 tokens of them."""
    laws = make_setting(make_node("k")).learner.laws("m", np.array([0]))
    prospect = Prospect(node="k", gpu_type="A100", at_s=0.0, forecast=make_decision(fixed_s=fixed_s).forecast)
    runs = [
        Circumstances(
            prompt_tokens=100.0,
            output_tokens=output_tokens,
            residence=Residence(1.0, tokens, pace),
            met_s=met_s,
            reading_share=share,
        )
        for tokens, share in ((0.0, 0.0), (2000.0, reading_share))
    ]
    without_s, with_s = (revise(prospect, laws, 0, run=run).forecast.times.fixed_s for run in runs)
    return with_s - without_s


def test_a_rehearsed_task_meets_prompts_of_others_for_as_long_as_its_real_answer_takes() -> None:
    met_s = others_s(400.0, met_s=None)
    assert others_s(400.0, met_s=40.0) < 0.8 * met_s
    assert others_s(4000.0, met_s=40.0, reading_share=0.2) > 3 * met_s


def test_prompts_that_waited_when_a_task_came_are_met_once() -> None:
    assert others_s(400.0, met_s=40.0, fixed_s=100.0) == pytest.approx(others_s(400.0, met_s=None))


def test_next_to_another_model_prompts_of_the_own_one_hold_a_run_up_for_twice_as_long() -> None:
    assert others_s(400.0, met_s=None, pace=0.5) == pytest.approx(2 * others_s(400.0, met_s=None))
