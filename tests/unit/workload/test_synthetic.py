import numpy as np
import pytest

from perllm_lab.workload.synthetic import generate_arrivals


def test_the_published_statistics_are_met():
    arrivals = generate_arrivals(20_000, np.random.default_rng(0))
    prompts, outputs = (
        np.log([getattr(arrival, field) for arrival in arrivals]) for field in ("prompt_tokens", "output_tokens")
    )
    assert (prompts.mean(), prompts.std()) == pytest.approx((6.63, 0.99), abs=0.03)
    assert (outputs.mean(), outputs.std()) == pytest.approx((5.02, 0.86), abs=0.03)
    assert np.corrcoef(prompts, outputs)[0, 1] == pytest.approx(0.09, abs=0.02)
    assert len(arrivals) / arrivals[-1].at_s == pytest.approx(5.5, rel=0.03)


def test_lengths_stay_within_the_published_maxima():
    arrivals = generate_arrivals(20_000, np.random.default_rng(0))
    assert max(arrival.prompt_tokens for arrival in arrivals) == 14050
    assert max(arrival.output_tokens for arrival in arrivals) == 1000
    assert min(min(arrival.prompt_tokens, arrival.output_tokens) for arrival in arrivals) >= 1


def test_the_same_seed_gives_the_same_requests_from_0_s_on():
    first, second = (generate_arrivals(50, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert first[0].at_s == 0.0
    assert generate_arrivals(0, np.random.default_rng(3)) == []
