import numpy as np
import pytest

from perllm_lab.workload.synthetic import CODE, SHORT, Bursts, generate_arrivals


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


def test_the_code_trace_has_long_prompts_and_short_answers():
    arrivals = generate_arrivals(20_000, np.random.default_rng(0), CODE)
    prompts, outputs = (
        np.log([getattr(arrival, field) for arrival in arrivals]) for field in ("prompt_tokens", "output_tokens")
    )
    # the longest prompts are cut at 7,436 tokens
    assert (prompts.mean(), prompts.std()) == pytest.approx((7.00, 1.36), abs=0.12)
    assert (outputs.mean(), outputs.std()) == pytest.approx((2.79, 0.85), abs=0.03)


def test_the_short_trace_has_the_means_of_the_paper():
    arrivals = generate_arrivals(50_000, np.random.default_rng(0), SHORT)
    assert np.mean([arrival.prompt_tokens for arrival in arrivals]) == pytest.approx(19, rel=0.03)
    assert np.mean([arrival.output_tokens for arrival in arrivals]) == pytest.approx(58, rel=0.03)


@pytest.mark.parametrize("bursts", [Bursts(13.0, 0.25), Bursts(13.0, 0.4), Bursts(5.0, 0.1), Bursts(1.5, 0.5)])
def test_bursts_have_the_variation_and_the_rate_they_are_given(bursts):
    gaps_s = bursts.draw_gaps_s(1_000_000, 5.5, np.random.default_rng(0))
    assert gaps_s.mean() == pytest.approx(1 / 5.5, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(bursts.variation, rel=0.05)


def test_bursts_are_the_arrivals_of_a_source_that_is_now_busy_and_now_quiet():
    bursts, rng = Bursts(6.0, 0.25), np.random.default_rng(1)
    # the same, played out: busy and quiet periods in turn, arrivals at random in the busy ones
    busy_s = (6.0**2 - 1.0) * 0.25 / (2.0 * 5.5 * 0.75**2)
    lengths_s = rng.exponential(busy_s, 60_000)
    begins_s = np.cumsum(lengths_s + rng.exponential(busy_s * 3.0, 60_000)) - lengths_s
    counts = rng.poisson(lengths_s * 5.5 / 0.25)
    at_s = np.sort(np.repeat(begins_s, counts) + rng.random(counts.sum()) * np.repeat(lengths_s, counts))
    gaps_s = bursts.draw_gaps_s(len(at_s), 5.5, rng)
    shares = [0.1, 0.5, 0.9, 0.95, 0.99, 0.999]
    assert np.quantile(gaps_s, shares) == pytest.approx(np.quantile(np.diff(at_s), shares), rel=0.06)
