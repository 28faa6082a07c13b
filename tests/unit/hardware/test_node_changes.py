"""Nodes of several GPUs, and what events do to a node."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.node import Job, SimulatedNode
from unit.hardware.round_gpu import ROUND_GPU as GPU

LINK = LinkType(bandwidth_bps=8e6, rtt_s=0.0)  # 1 MB/s


class Steady:
    """A generator whose links always have the nominal capacity."""

    def uniform(self, low, high, size):
        return np.ones(size)


def make_node(*, gpus=1, resident=True):
    return SimulatedNode(GPU, LINK, Steady(), resident=resident, gpus=gpus)


def job(key, *, prompt=0, output=10, size=0, model=""):
    return Job(key, prompt_tokens=prompt, output_tokens=output, input_bytes=size, model=model)


def drain(node):
    finished = []
    while (due_s := node.next_event_s()) is not None:
        finished += node.advance(due_s)
    return {run.job.key: run for run in finished}


def test_each_gpu_runs_a_batch_of_its_own_and_draws_its_own_power():
    node = make_node(gpus=3)
    for key in ("a", "b"):
        node.admit(job(key), 0.0)
    node.advance(1.0)
    assert node.power_w == pytest.approx(2 * 2 / 0.2 + 10)
    assert [run.finished_s for run in drain(node).values()] == pytest.approx([2.0, 2.0])
    assert node.energy_j == pytest.approx(2 * 20 + 2 * 10)
    assert node.idle_energy_j == pytest.approx(2 * 10)


def test_a_task_goes_to_the_gpu_with_the_fewest_tasks():
    node = make_node(gpus=2)
    node.admit(job("long", output=100), 0.0)
    node.admit(job("short"), 0.0)
    node.advance(2.5)
    node.admit(job("next"), 2.5)
    # alongside long it would need 3 s
    assert drain(node)["next"].finished_s == pytest.approx(4.5)


def test_the_model_is_loaded_for_the_whole_node_at_once():
    node = make_node(gpus=2, resident=False)
    node.admit(job("a"), 0.0)
    node.admit(job("b"), 3.0)
    assert {key: run.finished_s for key, run in drain(node).items()} == {
        "a": pytest.approx(7.0),
        "b": pytest.approx(7.0),
    }


def test_a_slower_gpu_takes_longer_at_the_same_power():
    node = make_node()
    node.admit(job("a", prompt=100), 0.0)
    node.set_speed_factor(0.5, 0.5)  # 0.5 s of prefill are left, now 1 s
    node.advance(2.0)
    assert node.power_w == pytest.approx(2 / 0.2)
    node.set_speed_factor(1.0, 2.5)  # 1 s of decoding at half speed: 2.5 tokens
    run = drain(node)["a"]
    assert run.finished_s == pytest.approx(2.5 + 7.5 * 0.2)
    assert run.energy_j == pytest.approx(150 + 10 * 2.5)


def test_a_transfer_slows_with_the_bandwidth_factor_and_recovers_with_it():
    node = make_node()
    node.admit(job("a", size=2_000_000), 0.0)
    node.set_bandwidth_factor(0.25, 1.0)
    assert node.bandwidth_bps == 2e6
    node.advance(3.0)
    assert node.received_bytes == pytest.approx(1_500_000)
    node.set_bandwidth_factor(1.0, 3.0)
    assert drain(node)["a"].transferred_s == pytest.approx(3.5)


def test_the_bandwidth_factor_leaves_the_random_variation_as_it_was():
    slow, nominal = (SimulatedNode(GPU, LINK, np.random.default_rng(3), resident=True) for _ in range(2))
    slow.set_bandwidth_factor(0.5, 0.0)
    for node in (slow, nominal):
        node.admit(job("a", size=10**9), 0.0)
        node.advance(100.0)
    assert slow.received_bytes == pytest.approx(nominal.received_bytes / 2)


def test_a_power_cut_loses_all_jobs_and_the_node_draws_nothing():
    node = make_node(gpus=2)
    for key in ("a", "b"):
        node.admit(job(key), 0.0)
    lost = node.power_off(1.0)
    assert sorted((run.job.key, run.energy_j) for run in lost) == [
        ("a", pytest.approx(10.0)),
        ("b", pytest.approx(10.0)),
    ]
    node.advance(50.0)
    assert (node.power_w, node.jobs, node.next_event_s()) == (0.0, 0, None)
    assert node.energy_j == pytest.approx(20.0)
    with pytest.raises(ValueError, match="is off"):
        node.admit(job("c"), 50.0)


def test_a_node_that_returns_loads_its_model_anew():
    node = make_node()
    node.power_off(10.0)
    node.power_on(20.0)
    assert node.power_w == 10.0
    node.admit(job("a"), 20.0)
    assert drain(node)["a"].finished_s == pytest.approx(27.0)
    node.power_off(30.0)
    node.power_on(40.0, resident=True)
    node.admit(job("b"), 40.0)
    assert drain(node)["b"].finished_s == pytest.approx(42.0)


jobs = st.builds(
    job,
    st.uuids().map(str),
    prompt=st.integers(0, 3000),
    output=st.integers(1, 800),
    size=st.sampled_from([0, 4000, 2_000_000]),
    model=st.sampled_from(["chat", "chat", "code", "draft"]),
)
factors = st.floats(0.05, 3.0)
steps = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),
        st.one_of(
            st.tuples(st.just("admit"), jobs),
            st.tuples(st.just("admit"), jobs),
            st.tuples(st.just("remove"), st.integers(0, 20)),
            st.tuples(st.just("speed"), factors),
            st.tuples(st.just("bandwidth"), factors),
            st.tuples(st.just("cut"), st.none()),
        ),
    ),
    max_size=40,
)


class Player:
    """Does things to a node and collects what comes out of it."""

    def __init__(self, node):
        self.node, self.now_s, self.admitted, self.outcomes = node, 0.0, [], []

    def play(self, pause_s, deed, value):
        self.now_s += pause_s
        self.outcomes += self.node.advance(self.now_s)
        getattr(self, deed)(value)

    def admit(self, value):
        self.node.admit(value, self.now_s)
        self.admitted.append(value.key)

    def remove(self, value):
        if value < len(self.admitted) and (run := self.node.remove(self.admitted[value], self.now_s)):
            self.outcomes.append(run)

    def speed(self, value):
        self.node.set_speed_factor(value, self.now_s)

    def bandwidth(self, value):
        self.node.set_bandwidth_factor(value, self.now_s)

    def cut(self, value):
        self.outcomes += self.node.power_off(self.now_s)
        self.node.power_on(self.now_s)


@settings(max_examples=150, deadline=None)
@given(gpu=st.sampled_from(sorted(CATALOGUE)), gpus=st.integers(1, 4), deeds=steps)
def test_whatever_happens_every_joule_has_an_owner_and_every_job_ends_once(gpu, gpus, deeds):
    player = Player(SimulatedNode(CATALOGUE[gpu], LinkType(100e6, 0.005), np.random.default_rng(0), gpus=gpus))
    for pause_s, (deed, value) in deeds:
        player.play(pause_s, deed, value)
    player.outcomes += drain(player.node).values()
    assert sorted(run.job.key for run in player.outcomes) == sorted(player.admitted)
    used_j = sum(run.energy_j for run in player.outcomes)
    assert player.node.energy_j == pytest.approx(used_j + player.node.idle_energy_j, rel=1e-9)
    assert all(run.energy_j >= 0 for run in player.outcomes)
