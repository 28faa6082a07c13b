import pytest

from perllm.api.task_status import EnergyQuality, Observation
from perllm.controller.stages import note_energy
from perllm.costs.service import Expense
from perllm.energy.attribution import MISSING, Attribution

OBSERVED = Observation(latency=10.5)


def test_the_parts_of_the_energy_of_a_task_add_up_to_it() -> None:
    measured = Attribution(110.0004, EnergyQuality.MEASURED, idle_j=20.0)
    observed = note_energy(OBSERVED, measured, 9.9996, Expense(money=0.0012345, grams=0.5))
    parts = (observed.transmission_joules, observed.inference_joules, observed.idle_joules)
    assert parts == (10.0, pytest.approx(80.0), 20.0)
    assert (observed.energy_joules, observed.latency) == (110.0, 10.5)
    assert (observed.money, observed.carbon_grams) == (0.001234, 0.5)


def test_what_is_not_known_is_not_zero() -> None:
    observed = note_energy(OBSERVED, MISSING, 10.0, Expense())
    assert observed == Observation(latency=10.5, energy_quality=EnergyQuality.MISSING)
