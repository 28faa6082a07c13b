"""Why a task goes where it goes: what was compared, and by what the next best node lost."""

import numpy as np
import pytest

from perllm.placement.reasons import explain_arm
from perllm.policy.problem import Choice, Term

NAMES = ["a", "b", "c"]


def make_choice(chances: list[float], energies: list[float], arm: int | None = 0, **fields: object) -> Choice:
    chance, energy = np.array(chances), np.array(energies)
    scores = chance - energy
    terms = (Term("chance", chance), Term("energy", energy, -1))
    return Choice(arm=arm, scores=scores, reason="highest net value", candidates=2, terms=terms)


def test_the_figures_of_the_chosen_node_add_up_and_the_next_best_is_told_by_its_parts() -> None:
    choice = make_choice([0.99, 0.95, 0.2], [0.05, 0.04, 0.0])
    assert explain_arm(NAMES, choice, 0, 0) == (
        "highest net value, of 2 candidates: 0.940 = 0.990 chance - 0.050 energy; "
        "next is b with 0.910 (-0.040 by chance, +0.010 by energy)"
    )


def test_without_a_second_node_none_is_named() -> None:
    choice = make_choice([0.99, -np.inf, -np.inf], [0.05, 0.0, 0.0])
    assert explain_arm(NAMES, choice, 0, 0).endswith("0.940 = 0.990 chance - 0.050 energy")


def test_equal_nodes_are_equal() -> None:
    choice = make_choice([0.99, 0.99, 0.0], [0.05, 0.05, 0.0])
    assert explain_arm(NAMES, choice, 0, 0).endswith("; next is b with 0.940")


@pytest.mark.parametrize(
    ("arm", "open_arm", "reason"),
    [
        (
            1,
            1,
            "best node with room when the pod had to be placed: 0.910 = 0.950 chance - 0.040 energy; next is c with ",
        ),
        (1, 0, "kube-scheduler preferred this node to the policy's choice, a"),
    ],
)
def test_another_node_than_the_choice_has_a_cause_of_its_own(arm: int, open_arm: int, reason: str) -> None:
    choice = make_choice([0.99, 0.95, 0.2], [0.05, 0.04, 0.0], arm=None)
    assert explain_arm(NAMES, choice, arm, open_arm).startswith(reason)


def test_a_node_that_was_never_tried_has_no_figures() -> None:
    choice = make_choice([np.inf, 0.95, 0.2], [0.0, 0.04, 0.0])
    assert explain_arm(NAMES, choice, 0, 0) == "highest net value, of 2 candidates"
