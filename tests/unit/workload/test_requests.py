import dataclasses
from statistics import median

import numpy as np
import pytest

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.node import unloaded_latency_s
from perllm_lab.hardware.scenario import NodeGroup
from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.requests import RequestMix, build_requests, median_latencies_s
from perllm_lab.workload.scenarios import load_scenario
from perllm_lab.workload.synthetic import generate_arrivals

MODERN = load_scenario("modern")


def build(arrivals, **mix):
    return build_requests(arrivals, MODERN, np.random.default_rng(5), RequestMix(**mix))


def test_three_tasks_in_ten_carry_2_mb_and_the_others_their_text():
    arrivals = generate_arrivals(2000, np.random.default_rng(0))
    requests = build(arrivals)
    heavy = [request for request in requests if request.input_bytes == 2_000_000]
    assert len(heavy) / len(requests) == pytest.approx(0.3, abs=0.03)
    assert {request.input_bytes / request.prompt_tokens for request in requests if request not in heavy} == {4.0}


def test_a_deadline_is_one_to_three_times_the_median_nodes_latency():
    arrivals = [Arrival(float(second), 1000, 200) for second in range(400)]
    requests = build(arrivals)
    sizes = np.array([float(request.input_bytes) for request in requests])
    medians_s = median_latencies_s(MODERN.nodes(), np.full(len(requests), 1000.0), 200, sizes)
    slack = [request.deadline_s for request in requests] / medians_s
    assert slack.min() == pytest.approx(1.0, abs=0.03)
    assert slack.max() == pytest.approx(3.0, abs=0.03)


def test_the_median_latency_counts_pod_start_transfer_prefill_and_decode():
    # The median of the 24 nodes lies between the slowest A10 and the fastest T4.
    # Their contexts have 1000 + 100 / 2 tokens in the mean, 750 more than those for which the published times hold.
    a10_s = 1.3 + 0.005 + 16e6 / 300e6 + 0.35 + 100 * (0.0347 + 750 * CATALOGUE["a10-8b"].context_token_s)
    t4_s = 1.3 + 0.005 + 16e6 / 100e6 + 0.8 + 100 * (0.059 + 750 * CATALOGUE["t4-8b"].context_token_s)
    found = median_latencies_s(MODERN.nodes(), np.array([1000.0]), 100, np.array([2e6]))
    assert found == pytest.approx([(a10_s + t4_s) / 2])


def test_a_deadline_does_not_tell_the_true_length():
    arrivals = [Arrival(0.0, 500, 10), Arrival(1.0, 500, 900)]
    swapped = [dataclasses.replace(arrival, output_tokens=910 - arrival.output_tokens) for arrival in arrivals]
    assert [request.deadline_s for request in build(arrivals)] == [request.deadline_s for request in build(swapped)]


def test_hints_are_given_only_when_asked_for():
    arrivals = [Arrival(float(second), 500, 100) for second in range(500)]
    assert {request.hint_tokens for request in build(arrivals)} == {None}
    assert {request.hint_tokens for request in build(arrivals, hint_log_error=0.0)} == {100}
    errors = np.log([request.hint_tokens / 100 for request in build(arrivals, hint_log_error=0.5)])
    assert errors.std() == pytest.approx(0.5, abs=0.05)


def test_no_arrivals_no_requests():
    assert build([]) == []


def test_deadlines_may_have_nothing_to_do_with_the_request():
    requests = build(generate_arrivals(2000, np.random.default_rng(0)), deadline_s=(2.0, 6.0))
    deadlines_s = np.array([request.deadline_s for request in requests])
    assert (deadlines_s.min(), deadlines_s.max()) == (pytest.approx(2.0, abs=0.02), pytest.approx(6.0, abs=0.02))
    prompts = [request.prompt_tokens for request in requests]
    assert np.corrcoef(prompts, deadlines_s)[0, 1] == pytest.approx(0.0, abs=0.05)


def test_payloads_may_vary_exponentially_about_their_mean():
    arrivals = generate_arrivals(20_000, np.random.default_rng(0))
    requests = build(arrivals, payload_share=1.0, payload_bytes=1_500_000, payload_varies=True)
    sizes = np.array([request.input_bytes for request in requests])
    assert (sizes.mean(), sizes.std()) == pytest.approx((1.5e6, 1.5e6), rel=0.03)


def test_a_scenario_says_how_its_requests_are_made():
    requests = build_requests([Arrival(0.0, 20, 50)] * 500, load_scenario("paper"), np.random.default_rng(1))
    assert all(2.0 <= request.deadline_s <= 6.0 for request in requests)
    heavy = [request.input_bytes for request in requests if request.input_bytes != 80]
    assert len(heavy) / len(requests) == pytest.approx(0.5, abs=0.06)
    assert len(set(heavy)) > 200


def test_nodes_that_join_later_leave_deadlines_alone():
    arrivals = generate_arrivals(50, np.random.default_rng(0))
    late = NodeGroup(name="late", count=30, tier="cloud", gpu="h100-8b", uplink_mbps=1000, rtt_ms=1, joins_at=0.5)
    grown = MODERN.model_copy(update={"groups": (*MODERN.groups, late)})
    of_both = [build_requests(arrivals, scenario, np.random.default_rng(5)) for scenario in (MODERN, grown)]
    assert of_both[0] == of_both[1]


@pytest.mark.parametrize("count", [1, 2, 5, 8, 24])
def test_the_median_node_is_that_of_all_nodes(count):
    nodes = MODERN.nodes()[::-1][:count]
    prompts, sizes = np.array([10.0, 4000.0]), np.array([40.0, 2e6])
    expected = [
        median(
            unloaded_latency_s(node.gpu, node.link, prompt_tokens=prompt, output_tokens=100.0, input_bytes=size)
            for node in nodes
        )
        for prompt, size in zip(prompts.tolist(), sizes.tolist(), strict=True)
    ]
    assert median_latencies_s(nodes, prompts, 100.0, sizes).tolist() == expected
