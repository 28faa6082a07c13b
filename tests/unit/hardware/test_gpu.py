import pytest

from perllm_lab.hardware.catalogue import A100_8B, CATALOGUE, JETSON_ORIN
from perllm_lab.hardware.server_gpus import H100


def decode_power_w(gpu, batch):
    return gpu.iteration_j(batch) / gpu.iteration_s(batch)


def joules_per_token(gpu, batch):
    return gpu.iteration_j(batch) / batch


def test_an_iteration_slows_with_the_batch():
    assert JETSON_ORIN.iteration_s(1) == pytest.approx(0.101)
    assert JETSON_ORIN.iteration_s(6) == pytest.approx(0.116)


@pytest.mark.parametrize(("batch", "context", "measured_ms"), [(16, 4000, 10.02), (64, 256, 8.32), (64, 4000, 21.1)])
def test_an_iteration_slows_with_the_context_as_was_measured(batch, context, measured_ms):
    assert 1e3 * H100.iteration_s(batch, context) == pytest.approx(measured_ms, rel=0.06)


def test_no_prompt_alone_is_read_in_less_time_than_the_weights():
    assert H100.lone_prefill_s(10) == H100.iteration_s(0)
    assert H100.lone_prefill_s(2000) == pytest.approx(0.1)


def test_power_is_tokens_per_second_times_joules_per_token():
    # 2 tokens an iteration of 0.104 s at 0.15 + 3.1 / 2 joules each
    assert decode_power_w(JETSON_ORIN, 2) == pytest.approx(2 / 0.104 * 1.7)


def test_the_energy_ranking_of_edge_and_cloud_flips_with_occupancy():
    assert joules_per_token(JETSON_ORIN, 1) < joules_per_token(A100_8B, 1)
    assert joules_per_token(A100_8B, 64) == pytest.approx(0.17, abs=0.01)
    assert joules_per_token(A100_8B, 64) < joules_per_token(JETSON_ORIN, JETSON_ORIN.slots)


@pytest.mark.parametrize("gpu", CATALOGUE.values(), ids=CATALOGUE)
def test_every_gpu_draws_more_when_it_works_and_names_its_source(gpu):
    for batch in (1, gpu.slots):
        assert decode_power_w(gpu, batch) > gpu.idle_power_w
    assert gpu.prefill_power_w > gpu.idle_power_w
    assert gpu.source
