"""Several models on one GPU, as docs/measured-gpu.md#two-models-on-one-gpu found them."""

import dataclasses

import numpy as np
import pytest

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.engine import SHARED_PACE
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.node import Job, SimulatedNode
from unit.hardware.round_gpu import ROUND_GPU as GPU

SHARE = SHARED_PACE / 2
CHAT, CODE = "chat", "code"


def make_node(gpu=GPU, *, gpus=1, resident=True):
    return SimulatedNode(gpu, LinkType(8e6, rtt_s=0.0), np.random.default_rng(0), resident=resident, gpus=gpus)


def job(key, model, *, prompt=0, output=10):
    return Job(key, prompt_tokens=prompt, output_tokens=output, input_bytes=0, is_request=True, model=model)


def drain(node):
    finished = []
    while (due_s := node.next_event_s()) is not None:
        finished += node.advance(due_s)
    return {run.job.key: run for run in finished}


def test_tasks_of_two_models_share_no_batch_and_each_gets_half_of_the_time():
    node = make_node()
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE), 0.0)
    runs = drain(node)
    assert [runs[key].finished_s for key in "ab"] == pytest.approx([10 * 0.2 / SHARE] * 2)


def test_a_larger_batch_gets_no_more_of_the_time():
    node = make_node()
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE, output=40), 0.0)
    node.admit(job("c", CODE, output=40), 0.0)
    node.advance(1.0)
    assert [node.generated(key) for key in "abc"] == [int(SHARE / 0.2), int(SHARE / 0.3), int(SHARE / 0.3)]


@pytest.mark.parametrize(("batches", "measured"), [((8, 8), 2.1), ((64, 1), 2.2), ((64, 64), 2.2), ((8, 8, 8), 3.0)])
def test_an_iteration_takes_as_many_times_as_long_as_was_measured(batches, measured):
    gpu = dataclasses.replace(CATALOGUE["h100-8b"], slots=64, context_token_s=0.0)
    node = make_node(gpu)
    for model, batch in enumerate(batches):
        for number in range(batch):
            node.admit(job(f"{model}/{number}", str(model), prompt=1, output=100_000), 0.0)
    node.advance(1.0)
    before = [node.generated(f"{model}/0") for model in range(len(batches))]
    node.advance(21.0)
    for model, batch in enumerate(batches):
        written = node.generated(f"{model}/0") - before[model]
        assert 20.0 / written / gpu.iteration_s(batch) == pytest.approx(measured, rel=0.1)


def test_who_is_alone_again_has_the_whole_gpu_again():
    node = make_node()
    node.admit(job("a", CHAT, output=10), 0.0)
    node.admit(job("b", CODE, output=5), 1.0)
    runs = drain(node)
    left_s = 10 * 0.2 - 1.0
    assert runs["b"].finished_s == pytest.approx(1.0 + 5 * 0.2 / SHARE)
    assert runs["a"].finished_s == pytest.approx(runs["b"].finished_s + left_s - 5 * 0.2)
    node.admit(job("c", CHAT, output=10), 20.0)
    assert drain(node)["c"].finished_s == pytest.approx(22.0)


def test_a_prompt_of_another_model_does_not_stop_the_decoding():
    node = make_node()
    node.admit(job("a", CHAT, output=100), 0.0)
    node.admit(job("b", CODE, prompt=100, output=1), 0.0)
    node.advance(0.9 / SHARE)
    assert node.generated("a") == 4
    run = drain(node)["b"]
    assert run.decode_s == pytest.approx(1.0 / SHARE)


def test_a_removed_task_gives_its_share_back():
    node = make_node()
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE), 0.0)
    node.remove("b", 1.0 / SHARE)
    assert drain(node)["a"].finished_s == pytest.approx(1.0 / SHARE + 1.0)


def test_each_model_pays_for_its_own_iterations_and_the_idle_power_is_drawn_once():
    node = make_node()
    assert node.power_w == 10.0
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE), 0.0)
    assert node.power_w == pytest.approx(2.0 / 0.2)  # the mean of both alone, of 2 J in 0.2 s
    runs = drain(node)
    assert [runs[key].energy_j for key in "ab"] == pytest.approx([20.0 / SHARED_PACE] * 2)
    node.advance(100.0)
    assert (node.power_w, node.idle_energy_j) == pytest.approx((10.0, 10.0 * (100.0 - runs["a"].finished_s)))


def test_each_model_is_loaded_when_it_is_first_asked_for():
    node = make_node(resident=False)
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE), 2.0)
    node.advance(3.0)
    assert node.waiting == 2
    runs = drain(node)
    assert (runs["a"].prefill_s, runs["b"].prefill_s) == pytest.approx((5.0, 7.0))


def test_a_model_that_comes_later_is_as_slow_as_the_gpu_has_become():
    node = make_node()
    node.admit(job("a", CHAT), 0.0)
    drain(node)
    node.set_speed_factor(0.5, 10.0)
    node.admit(job("b", CODE), 10.0)
    assert drain(node)["b"].finished_s == pytest.approx(14.0)


def test_a_task_goes_to_the_gpu_with_the_fewest_tasks_of_all_models():
    node = make_node(gpus=2)
    node.admit(job("a", CHAT), 0.0)
    node.admit(job("b", CODE), 0.0)
    assert [run.finished_s for run in drain(node).values()] == pytest.approx([2.0, 2.0])
