import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.node import Job, SimulatedNode, unloaded_latency_s
from unit.hardware.round_gpu import ROUND_GPU

GPU = dataclasses.replace(ROUND_GPU, pod_start_s=1.0)
LINK = LinkType(bandwidth_bps=8e6, rtt_s=0.0)


def make_node(gpu=GPU, link=LINK, *, resident=True, seed=0):
    return SimulatedNode(gpu, link, np.random.default_rng(seed), resident=resident)


def job(key, *, prompt=100, output=10, size=0):
    return Job(key, prompt_tokens=prompt, output_tokens=output, input_bytes=size)


def drain(node):
    finished = []
    while (due_s := node.next_event_s()) is not None:
        finished += node.advance(due_s)
    return {run.job.key: run for run in finished}


def test_a_lone_job_goes_through_every_phase():
    node = make_node(link=LinkType(8e6, rtt_s=0.5), resident=False)
    node.admit(job("a"), 2.0)
    run = drain(node)["a"]
    assert run.started_s == pytest.approx(3.0)  # pod start 1 s
    assert run.transferred_s == pytest.approx(3.5)  # one round trip, no bytes
    assert run.prefill_s == pytest.approx(8.5)  # model load 5 s
    assert run.finished_s == pytest.approx(11.5)  # prefill 1 s, 10 iterations of 0.2 s
    assert run.energy_j == pytest.approx(100 + 20)  # prefill 1 s at 100 W, 10 tokens at 2 J
    assert node.energy_j == pytest.approx(120 + 8.5 * 10)


def test_an_unloaded_latency_is_that_of_a_lone_job_with_the_model_loaded():
    node = make_node(link=LinkType(8e6, rtt_s=0.5))
    node.admit(job("a"), 0.0)
    expected_s = unloaded_latency_s(GPU, node.link, prompt_tokens=100, output_tokens=10, input_bytes=0)
    assert drain(node)["a"].finished_s == pytest.approx(expected_s)


def test_a_request_starts_no_pod_and_overtakes_pods_that_start():
    node = make_node()
    node.admit(job("pod"), 0.0)
    node.admit(dataclasses.replace(job("request"), is_request=True), 0.5)
    runs = drain(node)
    assert runs["request"].started_s == runs["request"].prefill_s == pytest.approx(0.5)
    assert runs["pod"].prefill_s == pytest.approx(1.5)  # waits for the request's prefill


def test_the_engines_count_jobs_and_tokens():
    begun = []
    node = SimulatedNode(GPU, LINK, np.random.default_rng(0), resident=True, on_decode=begun.append)
    for key in "abc":
        node.admit(job(key), 0.0)
    node.advance(1.5)
    assert (node.running, node.waiting, node.prompt_tokens, begun) == (1, 2, 0, [])
    node.advance(3.0 + 0.95)  # two prefills of 1 s, then 0.3 s an iteration
    assert (node.running, node.waiting, node.prompt_tokens, begun) == (2, 1, 200, ["a", "b"])
    assert (node.generated("a"), node.generated("b"), node.generated("c")) == (3, 3, 0)
    assert node.output_tokens == pytest.approx(2 * 0.95 / 0.3)
    drain(node)
    assert (node.running, node.waiting, node.prompt_tokens) == (0, 0, 300)
    assert node.output_tokens == pytest.approx(30)


def test_a_prefill_blocks_decoding_and_a_batch_shares_its_energy():
    node = make_node()
    node.admit(job("first"), 0.0)
    node.admit(job("second"), 2.0)
    runs = drain(node)
    # first decodes 1 s alone (5 tokens, 10 J), waits 1 s for second's prefill, then both decode at 0.3 s an iteration:
    # 5 tokens to first's end (1.5 s, 3 J an iteration, half each), then second alone: 5 tokens, 10 J
    assert runs["first"].finished_s == pytest.approx(5.5)
    assert runs["second"].finished_s == pytest.approx(6.5)
    assert runs["first"].energy_j == pytest.approx(100 + 10 + 7.5)
    assert runs["second"].energy_j == pytest.approx(100 + 7.5 + 10)


def test_only_a_prompt_that_nothing_decodes_with_waits_for_the_weights():
    node = make_node(dataclasses.replace(GPU, prefill_least_s=0.5))
    node.admit(job("alone", prompt=1), 0.0)
    node.admit(job("joins", prompt=1), 1.0)
    runs = drain(node)
    assert runs["alone"].decode_s - runs["alone"].prefill_s == pytest.approx(0.5)
    assert runs["joins"].decode_s - runs["joins"].prefill_s == pytest.approx(0.01)


def test_power_follows_the_phase():
    node = make_node()
    node.admit(job("a"), 0.0)
    powers = [(node.advance(at_s), node.power_w)[1] for at_s in (0.5, 1.5, 2.5, 4.5)]
    assert powers == pytest.approx([10, 100, 2 / 0.2, 10])


def test_a_job_beyond_the_slots_waits_for_one():
    node = make_node()
    for key in ("a", "b", "c"):
        node.admit(job(key, prompt=0), 0.0)
    runs = drain(node)
    assert runs["a"].finished_s == runs["b"].finished_s == pytest.approx(4.0)
    assert runs["c"].prefill_s == pytest.approx(4.0)


def test_the_model_is_loaded_once_and_stays():
    node = make_node(resident=False)
    node.admit(job("a"), 0.0)
    node.admit(job("waits"), 3.0)
    assert drain(node)["waits"].prefill_s == pytest.approx(7.0)  # loaded at 6 s, then a's prefill of 1 s
    node.admit(job("later"), 100.0)
    assert drain(node)["later"].prefill_s == pytest.approx(101.0)


@pytest.mark.parametrize(
    ("removed_at_s", "energy_j"),
    [(0.5, 0.0), (1.5, 0.0), (4.0, 0.0), (7.5, 50.0), (9.0, 100.0 + 10.0)],
    ids=["pod start", "transfer", "model load", "prefill", "decode"],
)
def test_a_removed_job_leaves_at_once_with_what_it_used(removed_at_s, energy_j):
    node = make_node(link=LinkType(8e6, rtt_s=1.0), resident=False)
    node.admit(job("a"), 0.0)
    node.advance(removed_at_s)
    run = node.remove("a", removed_at_s)
    assert run is not None
    assert run.energy_j == pytest.approx(energy_j)
    assert node.jobs == 0
    assert node.power_w == 10.0
    assert drain(node) == {}


def test_removing_a_job_speeds_up_the_others():
    node = make_node()
    for key in ("stays", "goes"):
        node.admit(job(key, prompt=0), 0.0)
    node.remove("goes", 2.5)  # 5 of 10 tokens done at 0.3 s each, the rest at 0.2 s
    assert drain(node)["stays"].finished_s == pytest.approx(3.5)


def test_what_is_not_there_is_not_removed():
    node = make_node()
    node.admit(job("a"), 0.0)
    finished_s = drain(node)["a"].finished_s
    assert node.remove("a", finished_s) is None
    assert node.remove("never", finished_s) is None


def test_time_never_goes_back_and_keys_are_unique():
    node = make_node()
    node.admit(job("a"), 5.0)
    with pytest.raises(ValueError, match="already"):
        node.admit(job("a"), 6.0)
    with pytest.raises(ValueError, match="goes back"):
        node.advance(4.0)


def test_jobs_that_finish_while_another_is_admitted_are_still_reported():
    node = make_node()
    node.admit(job("a"), 0.0)
    node.admit(job("b"), 50.0)
    assert [run.job.key for run in node.advance(50.0)] == ["a"]


jobs = st.builds(
    job,
    st.uuids().map(str),
    prompt=st.integers(0, 3000),
    output=st.integers(0, 800),
    size=st.sampled_from([0, 4000, 2_000_000]),
)
actions = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.one_of(jobs, st.integers(0, 30), st.none())), min_size=1, max_size=40
)


def play(node, steps):
    """Admits jobs, removes the n-th admitted one, or just lets time pass; returns every job's outcome."""
    now_s, admitted, outcomes = 0.0, [], []
    for pause_s, action in steps:
        now_s += pause_s
        outcomes += node.advance(now_s)
        if isinstance(action, Job):
            node.admit(action, now_s)
            admitted.append(action.key)
        elif action is not None and action < len(admitted) and (run := node.remove(admitted[action], now_s)):
            outcomes.append(run)
    return outcomes + list(drain(node).values()), admitted


@settings(max_examples=150, deadline=None)
@given(gpu=st.sampled_from(sorted(CATALOGUE)), steps=actions)
def test_every_joule_belongs_to_a_job_or_to_idling_and_every_job_ends_once(gpu, steps):
    node = make_node(CATALOGUE[gpu], LinkType(100e6, 0.005), resident=False)
    outcomes, admitted = play(node, steps)
    assert sorted(run.job.key for run in outcomes) == sorted(admitted)
    used_j = sum(run.energy_j for run in outcomes)
    assert node.energy_j == pytest.approx(used_j + node.idle_energy_j, rel=1e-9)
    assert all(run.energy_j >= 0 for run in outcomes)


@settings(max_examples=100, deadline=None)
@given(steps=actions, looks=st.lists(st.floats(0.0, 200.0), max_size=30))
def test_looking_at_a_node_changes_nothing(steps, looks):
    watched, alone = (make_node(CATALOGUE["a10-8b"], LinkType(100e6, 0.005)) for _ in range(2))
    expected, _ = play(alone, steps)
    moments_s = np.cumsum([pause_s for pause_s, _ in steps])
    extra = [(at_s, None) for at_s in looks if at_s < moments_s[-1]]
    merged = sorted(
        [*zip(moments_s.tolist(), [each[1] for each in steps], strict=True), *extra], key=lambda step: step[0]
    )
    pauses_s = np.diff([0.0, *(at_s for at_s, _ in merged)])
    seen, _ = play(watched, [(pause_s, action) for pause_s, (_, action) in zip(pauses_s, merged, strict=True)])
    ends_s = {run.job.key: run.finished_s for run in seen}
    assert ends_s == {run.job.key: pytest.approx(run.finished_s) for run in expected}


def test_a_job_never_prefilled_says_so():
    node = make_node()
    node.admit(job("a"), 0.0)
    run = node.remove("a", 0.5)
    assert run is not None
    assert math.isnan(run.inference_s)


def test_tokens_take_longer_as_the_contexts_grow():
    node = make_node(dataclasses.replace(GPU, context_token_s=0.01, context_tokens=0.0))
    node.admit(job("a", prompt=20), 0.0)
    node.advance(2.0)
    run = drain(node)["a"]
    # Each of 10 tokens takes 0.2 s, and 0.01 s for each of 20 prompt tokens and, in the mean, of 5 written ones.
    assert run.finished_s - run.decode_s == pytest.approx(10 * (0.2 + 0.01 * 25))
    assert run.energy_j == pytest.approx(20 * 1.0 + 10 * 2.0)
