from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from perllm_lab.hardware.catalogue import A10, H100
from perllm_lab.hardware.job import Job
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.node import SimulatedNode
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.bound import Conditions, goodput_bound
from perllm_lab.workload.requests import Request

# One task at a time, 1 s a token, 1 s a prompt token; nothing before the prompt and no slope with the batch.
SERIAL = replace(A10, iteration_base_s=1.0, iteration_per_task_s=0.0, slots=1, prefill_per_token_s=1.0, pod_start_s=0.0)
LINK = LinkType(bandwidth_bps=8e6, rtt_s=0.0)
NOMINAL = Conditions(bandwidth=1.0)


def node(gpus: int = 1, *, name: str = "n", gpu: object = SERIAL) -> NodeSpec:
    return NodeSpec(name, "edge", "m", gpu, LINK, gpus, resident=True)  # type: ignore[arg-type]


def request(
    *, at_s: float = 0.0, prompt: int = 1, output: int = 9, deadline_s: float = 10.0, megabytes: float = 0
) -> Request:
    return Request("r", "m", at_s, prompt, output, int(megabytes * 1e6), deadline_s)


def count(nodes: Sequence[NodeSpec], requests: Sequence[Request]) -> float:
    return goodput_bound(nodes, requests, 1.0, NOMINAL)


class TestTrivialCases:
    def test_a_task_that_just_fits_counts(self) -> None:
        assert count([node()], [request(deadline_s=10.0)]) == pytest.approx(1)

    def test_a_task_that_cannot_fit_does_not(self) -> None:
        assert count([node()], [request(deadline_s=9.9)]) == 0

    def test_pod_start_and_transfer_take_from_the_time(self) -> None:
        slow = replace(SERIAL, pod_start_s=1.0)
        assert count([node(gpu=slow)], [request(deadline_s=13.0, megabytes=2)]) == pytest.approx(1)
        assert count([node(gpu=slow)], [request(deadline_s=12.9, megabytes=2)]) == 0

    def test_two_tasks_for_the_same_time_share_one_gpu(self) -> None:
        assert count([node()], [request(), request()]) == pytest.approx(1, rel=0.06)
        assert count([node(gpus=2)], [request(), request()]) == pytest.approx(2)
        assert count([node(), node(name="o")], [request(), request()]) == pytest.approx(2)

    def test_tasks_one_after_the_other_all_count(self) -> None:
        assert count([node()], [request(at_s=10.0 * place) for place in range(5)]) == pytest.approx(5)

    def test_short_tasks_are_chosen_when_not_all_fit(self) -> None:
        long, short = request(), request(output=1)
        assert count([node()], [long, long, *[short] * 5]) == pytest.approx(5, rel=0.06)

    def test_is_per_second_of_the_window(self) -> None:
        assert goodput_bound([node()], [request()], 4.0, NOMINAL) == pytest.approx(0.25)

    def test_nothing_is_in_time_without_tasks_or_nodes(self) -> None:
        assert (count([], [request()]), count([node()], [])) == (0.0, 0.0)

    def test_a_window_of_no_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="more than 0 s"):
            goodput_bound([node()], [request()], 0.0)


class TestBatch:
    def test_a_tight_deadline_forbids_a_full_batch(self) -> None:
        # 1 s a token alone, 2 s in a batch of 2, of 10 tokens: in time only alone, so that two need both GPUs.
        gpu = replace(SERIAL, iteration_base_s=0.0001, iteration_per_task_s=0.9999, slots=100, prefill_per_token_s=0.0)
        tasks = [request(output=10, deadline_s=10.0)] * 2
        assert count([node(gpu=gpu)], tasks) == pytest.approx(1, rel=0.06)

    def test_slots_limit_however_fast_the_batch_is(self) -> None:
        # An iteration takes 1 s at any batch, so GPU time is no limit, but 2 slots hold 2 tasks of 10 s at a time.
        gpu = replace(SERIAL, slots=2, prefill_per_token_s=0.0)
        tasks = [request(output=10, deadline_s=10.0)] * 5
        assert count([node(gpu=gpu)], tasks) == pytest.approx(2, rel=0.06)


def in_time(nodes: Sequence[NodeSpec], requests: Sequence[Request]) -> int:
    """Runs the tasks on the simulated hardware, spread in turn, and counts those in time."""
    machines = [SimulatedNode(spec.gpu, spec.link, default_rng(0), resident=True, gpus=spec.gpus) for spec in nodes]
    for place, each in enumerate(requests):
        job = Job(str(place), each.prompt_tokens, each.output_tokens, each.input_bytes)
        machines[place % len(machines)].admit(job, each.at_s)
    done = [finished for machine in machines for finished in machine.advance(1e6)]
    due_s = [each.at_s + each.deadline_s for each in requests]
    return sum(finished.finished_s <= due_s[int(finished.job.key)] for finished in done)


requests_strategy = st.lists(
    st.builds(
        request,
        at_s=st.floats(0, 20),
        prompt=st.integers(1, 4000),
        output=st.integers(1, 400),
        deadline_s=st.floats(1, 30),
        megabytes=st.sampled_from([0.0, 0.5, 2.0]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(requests=requests_strategy)
def test_no_run_on_the_simulated_hardware_beats_the_bound(requests: list[Request]) -> None:
    ordered = sorted(requests, key=lambda each: each.at_s)
    nodes = [node(gpu=A10), node(gpu=H100, name="o")]
    assert in_time(nodes, ordered) <= goodput_bound(nodes, ordered, 1.0) + 1e-6
