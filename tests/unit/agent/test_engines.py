import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.agent.engines import NO_LOAD, Load, read_load, read_models, read_slots, recognise_metrics
from perllm.api.node_server import MAX_SERVED_MODELS, InferenceEngine
from unit.agent.engines import VLLM_METRICS

METRICS = {
    InferenceEngine.VLLM: (VLLM_METRICS.format(running=3.0, waiting=2.0), Load(3, 2, 0.25)),
    InferenceEngine.SGLANG: (
        'sglang:num_running_reqs{tp_rank="0"} 4\nsglang:num_queue_reqs 1\nsglang:token_usage 0.5\n',
        Load(4, 1, 0.5),
    ),
    InferenceEngine.TGI: ("# TYPE tgi_queue_size gauge\ntgi_batch_current_size 8\ntgi_queue_size 7\n", Load(8, 7)),
    InferenceEngine.LLAMA_CPP: ("llamacpp:requests_processing 1\nllamacpp:requests_deferred 46\n", Load(1, 46)),
}


@pytest.mark.parametrize("engine", METRICS)
def test_an_engine_is_recognised_by_its_metrics_and_its_load_is_read(engine: InferenceEngine) -> None:
    text, load = METRICS[engine]
    assert (recognise_metrics(text), read_load(engine, text)) == (engine, load)


def test_engines_of_one_server_add_up_and_its_fullest_cache_counts() -> None:
    text = "".join(
        f'vllm:num_requests_running{{engine="{one}"}} {one + 1}\nvllm:kv_cache_usage_perc{{engine="{one}"}} 0.{one}\n'
        for one in range(3)
    )
    assert read_load(InferenceEngine.VLLM, text) == Load(6, None, 0.2)


def test_the_older_name_of_the_cache_is_known() -> None:
    assert read_load(InferenceEngine.VLLM, "vllm:gpu_cache_usage_perc 0.75\n").cache_use == 0.75


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e30", "words"])
def test_a_figure_that_cannot_be_is_unknown(value: str) -> None:
    text = f"vllm:num_requests_running {value}\nvllm:kv_cache_usage_perc {value}\n"
    assert read_load(InferenceEngine.VLLM, text) == NO_LOAD


@given(st.text() | st.text().map(lambda text: f"vllm:num_requests_running{text}"))
def test_any_text_is_a_load(text: str) -> None:
    assert read_load(InferenceEngine.VLLM, text).requests >= 0


def test_models_are_those_that_a_task_can_name() -> None:
    content = {
        "data": [{"id": "org/a"}, {"id": "org/a"}, {"id": "/models/x.gguf"}, {"id": "a model"}, {"id": 5}, "b", {}]
    }
    assert [one["id"] for one in read_models(content)] == ["org/a", "/models/x.gguf"]
    assert len(read_models({"data": [{"id": f"m{one}"} for one in range(1000)]})) == MAX_SERVED_MODELS
    assert read_models({"data": "odd"}) == read_models([]) == []


@pytest.mark.parametrize(("slots", "read"), [(4, 4), (0, None), (True, None), ("4", None), (10**9, None)])
def test_slots_are_a_plausible_number(slots: object, read: int | None) -> None:
    assert read_slots({"total_slots": slots}) == read
