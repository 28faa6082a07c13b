import pytest

from perllm.reporting.units import JOULES_PER_KWH, energy, kilowatt_hours


@pytest.mark.parametrize(
    ("energy_j", "words"),
    [
        (0.0, "0 J"),
        (0.5, "0.5 J"),
        (-1234.0, "-1.23 kJ"),
        (999_700.0, "1,000 kJ"),
        (1.81e12, "1.81 TJ"),
        (5e15, "5,000 TJ"),
    ],
)
def test_energy_has_three_digits_and_no_exponent(energy_j: float, words: str) -> None:
    assert energy(energy_j) == words


@pytest.mark.parametrize(
    ("kwh", "words"),
    [(0.05123, "0.05123 kWh"), (12.345, "12.35 kWh"), (9999.9, "10,000 kWh"), (50_280.4, "50,280 kWh")],
)
def test_the_energy_of_a_month_is_written_out(kwh: float, words: str) -> None:
    assert kilowatt_hours(kwh * JOULES_PER_KWH) == words
