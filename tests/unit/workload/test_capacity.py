import dataclasses

import pytest

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.capacity import capacity_per_s, scale_arrivals

ARRIVALS = [Arrival(0.0, 1000, 100), Arrival(1.0, 3000, 300), Arrival(5.0, 2000, 200)]


def node(key, **fields):
    return NodeSpec("node", "edge", "chat", CATALOGUE[key], LinkType(1e8, 0.005), **fields)


def test_capacity_is_one_task_per_mean_work_at_a_full_batch():
    # prefill 2000 tokens at 0.35 ms, 200 tokens in full iterations of 34 + 16 * 0.7 ms, 16 of them at once; in the mean
    # their contexts have 2000 + 200 / 2 tokens, 1800 more than those for which the 0.7 ms hold
    a10 = CATALOGUE["a10-8b"]
    iteration_s = 0.0452 + 16 * 1800 * a10.context_token_s
    work_s = 2000 * 0.00035 + 200 * iteration_s / 16
    assert a10.context_token_s > 0.0
    assert capacity_per_s([node("a10-8b")], ARRIVALS) == pytest.approx(1 / work_s)


def test_every_gpu_adds_its_own():
    one, four = (capacity_per_s([node("a10-8b", gpus=gpus)], ARRIVALS) for gpus in (1, 4))
    other = capacity_per_s([node("h100-8b")], ARRIVALS)
    assert four == pytest.approx(4 * one)
    assert capacity_per_s([node("h100-8b"), node("a10-8b", gpus=4)], ARRIVALS) == pytest.approx(other + four)


def test_what_joins_later_does_not_count():
    there = node("a10-8b")
    assert capacity_per_s([there, node("h100-8b", joins_at=0.5)], ARRIVALS) == capacity_per_s([there], ARRIVALS)


def test_a_capacity_for_no_arrivals_is_refused():
    with pytest.raises(ValueError, match="there are none"):
        capacity_per_s([node("a10-8b")], [])


def test_arrivals_are_scaled_to_a_rate_and_keep_their_pattern_and_lengths():
    scaled = scale_arrivals(ARRIVALS, 4.0)
    assert [arrival.at_s for arrival in scaled] == pytest.approx([0.0, 0.1, 0.5])
    assert [dataclasses.replace(arrival, at_s=0.0) for arrival in scaled] == [
        dataclasses.replace(arrival, at_s=0.0) for arrival in ARRIVALS
    ]


@pytest.mark.parametrize("arrivals", [[], [Arrival(0.0, 5, 5)], [Arrival(0.0, 5, 5), Arrival(0.0, 6, 6)]])
def test_arrivals_of_one_moment_have_no_rate_and_stay(arrivals):
    assert scale_arrivals(arrivals, 4.0) == arrivals
