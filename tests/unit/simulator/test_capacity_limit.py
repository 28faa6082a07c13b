from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from perllm_lab.hardware.catalogue import A10, H100
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.job import Finished, Job
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.node import SimulatedNode
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.capacity_limit import bound_value, limit_capacity
from perllm_lab.workload.requests import Request

# One task at a time, 1 s a token, 1 s a prompt token; nothing before the prompt and no slope with the batch.
SERIAL = replace(
    A10,
    iteration_base_s=1.0,
    iteration_per_task_s=0.0,
    slots=1,
    prefill_per_token_s=1.0,
    pod_start_s=0.0,
    context_token_s=0.0,
    prefill_least_s=0.0,
)
LINK = LinkType(bandwidth_bps=8e6, rtt_s=0.0)


def node(name: str = "n", gpu: GpuType = SERIAL) -> NodeSpec:
    return NodeSpec(name, "edge", "m", gpu, LINK, resident=True)


def request(at_s: float = 0.0, prompt: int = 1, output: int = 9, deadline_s: float = 10.0) -> Request:
    return Request("r", "m", at_s, prompt, output, 0, deadline_s)


def count(requests: Sequence[Request], seconds: float, *nodes: NodeSpec) -> float:
    return limit_capacity(nodes or (node(),), requests, seconds).tasks_in_time


def test_a_task_that_just_fits_counts_and_one_that_cannot_does_not() -> None:
    assert count([request(deadline_s=10.0)], 10.0) == pytest.approx(1)
    assert count([request(deadline_s=9.9)], 10.0) == 0


def test_no_more_tasks_fit_than_there_are_gpu_seconds() -> None:
    assert count([request()] * 8, 40.0) == pytest.approx(4, rel=0.02)
    assert count([request()] * 8, 40.0, node(), node("o")) == pytest.approx(8, rel=0.02)


def test_short_tasks_are_chosen_when_not_all_fit() -> None:
    assert count([request(), *[request(output=1)] * 5], 10.0) == pytest.approx(5, rel=0.02)


def test_a_tight_deadline_makes_a_batch_small_and_its_tasks_dear() -> None:
    batching = replace(SERIAL, slots=10, iteration_per_task_s=0.1, prefill_per_token_s=0.0)
    tight, loose = (count([request(deadline_s=at_s)] * 50, 30.0, node(gpu=batching)) for at_s in (10.0, 20.0))
    # 10 s allow a mean batch of 1.1, which takes 9 (1 / 1.1 + 0.1) s; 20 s allow all ten slots, 9 (1 / 10 + 0.1) s.
    assert (tight, loose) == (pytest.approx(30 / 9.08, rel=0.02), pytest.approx(30 / 1.8, rel=0.02))


def test_late_tasks_count_for_tokens() -> None:
    limit = limit_capacity([node()], [request(deadline_s=1.0)], 10.0)
    assert (limit.tasks_in_time, limit.output_tokens) == (0.0, pytest.approx(9))


def test_prices_come_near_the_best_division_of_tasks() -> None:
    # Each kind suits one half of the tasks: 10 s there, 100 s elsewhere; there are 300 s of each.
    work_s = np.where(np.arange(100)[:, None] % 2 == np.arange(2), 10.0, 100.0)
    assert bound_value(np.ones(100), work_s, np.array([300.0, 300.0])) == pytest.approx(60, rel=0.01)


def finish(nodes: Sequence[NodeSpec], requests: Sequence[Request]) -> list[Finished]:
    """Runs the tasks on the simulated hardware, spread in turn."""
    machines = [SimulatedNode(spec.gpu, spec.link, default_rng(0), resident=True, gpus=spec.gpus) for spec in nodes]
    for place, each in enumerate(requests):
        job = Job(str(place), each.prompt_tokens, each.output_tokens, each.input_bytes)
        machines[place % len(machines)].admit(job, each.at_s)
    return [finished for machine in machines for finished in machine.advance(1e6)]


requests_strategy = st.lists(
    st.builds(
        request,
        at_s=st.floats(0, 20),
        prompt=st.integers(1, 4000),
        output=st.integers(1, 400),
        deadline_s=st.floats(1, 30),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(requests=requests_strategy)
def test_no_run_on_the_simulated_hardware_beats_the_limit(requests: list[Request]) -> None:
    ordered = sorted(requests, key=lambda each: each.at_s)
    nodes = [node(gpu=A10), node("o", H100)]
    done = finish(nodes, ordered)
    due_s = [each.at_s + each.deadline_s for each in ordered]
    hits = sum(finished.finished_s <= due_s[int(finished.job.key)] for finished in done)
    assert hits <= count(ordered, max(due_s) - ordered[0].at_s, *nodes) + 1e-6
    last_s = max(finished.finished_s for finished in done)
    tokens = limit_capacity(nodes, ordered, last_s - ordered[0].at_s).output_tokens
    assert sum(finished.job.output_tokens for finished in done) <= tokens + 1e-6
