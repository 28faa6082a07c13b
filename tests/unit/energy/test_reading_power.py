import numpy as np
import pytest

from perllm.energy.intervals import Intervals
from perllm.energy.presence import NO_TASKS, Presence
from perllm.energy.reading_power import observe_reading_power
from perllm.energy.spans import Span, Usage

IDLE_W, DECODING_W, READING_W = 50.0, 200.0, 500.0


def read(begins_s: list[float], length_s: float) -> list[Span]:
    """Return tasks that decode on for a second after their prompts were read for so long."""
    return [Span(str(at_s), at_s, at_s + length_s + 1.0, 100.0, 10.0, at_s + length_s) for at_s in begins_s]


def meter(begins_s: list[float], length_s: float, reading_w: float, every_s: float = 1.0) -> Intervals:
    """Return the energy of 20 s in which there are always tasks, and some prompts are read."""
    times_s = np.arange(0.0, 20.1, every_s)
    reading_s = Presence.build(begins_s, [at_s + length_s for at_s in begins_s]).accumulate_s(times_s)
    active_j = DECODING_W * np.diff(times_s) + (reading_w - DECODING_W) * np.diff(reading_s)
    return Intervals(times_s, IDLE_W * np.diff(times_s) + active_j)


BEGINS_S = [0.2, 3.4, 3.9, 9.1, 12.8, 17.5]
BUSY = Presence.build([-1.0], [30.0])


@pytest.mark.parametrize(("reading_w", "ratio"), [(READING_W, 2.5), (DECODING_W, 1.0), (100.0, 1.0), (900.0, 3.0)])
def test_the_power_of_reading_is_found_from_intervals_with_more_and_with_less_of_it(
    reading_w: float, ratio: float
) -> None:
    intervals = meter(BEGINS_S, 0.4, reading_w)
    usage = observe_reading_power(Usage(), read(BEGINS_S, 0.4), intervals, IDLE_W, BUSY)
    assert usage.reading_power == pytest.approx(ratio, rel=0.03)


def test_samples_may_be_further_apart_than_prompts_take() -> None:
    intervals = meter(BEGINS_S, 0.4, READING_W, every_s=5.0)
    assert observe_reading_power(Usage(), read(BEGINS_S, 0.4), intervals, IDLE_W, BUSY).reading_power > 1.8


def test_intervals_that_all_read_as_much_say_nothing() -> None:
    begins_s = [0.3 + second for second in range(20)]
    intervals = meter(begins_s, 0.01, READING_W)
    usage = observe_reading_power(Usage(), read(begins_s, 0.01), intervals, IDLE_W, BUSY)
    assert usage.reading_power == pytest.approx(1.0, abs=0.1)


def test_intervals_without_a_known_energy_or_without_tasks_are_left_out() -> None:
    intervals = meter(BEGINS_S, 0.4, READING_W)
    intervals.energy_j[::2] = np.nan
    assert observe_reading_power(Usage(), read(BEGINS_S, 0.4), intervals, IDLE_W, BUSY).reading_power > 2.0
    intervals.energy_j[:] = np.nan
    assert observe_reading_power(Usage(), read(BEGINS_S, 0.4), intervals, IDLE_W, BUSY) == Usage()
    assert observe_reading_power(Usage(), [], meter([], 0.4, READING_W), IDLE_W, NO_TASKS) == Usage()
