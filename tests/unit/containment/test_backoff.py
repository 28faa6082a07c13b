"""Pauses between tries."""

from random import Random

from perllm.backoff import Backoff

BACKOFF = Backoff(first_s=0.2, limit_s=10.0)


def test_pauses_double_up_to_the_limit() -> None:
    longest = [max(BACKOFF.pause_s(failures, Random(seed)) for seed in range(200)) for failures in range(1, 9)]
    expected = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert all(0.95 * limit < pause <= limit for pause, limit in zip(longest, expected, strict=True))


def test_after_years_of_failures_the_pause_is_the_limit() -> None:
    assert 5.0 <= BACKOFF.pause_s(10**9, Random(0)) <= 10.0


def test_those_who_failed_together_come_back_apart() -> None:
    rng = Random(0)
    assert len({BACKOFF.pause_s(5, rng) for _ in range(100)}) == 100
