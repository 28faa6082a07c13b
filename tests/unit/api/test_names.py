import re

import pytest

from perllm.api.names import task_status_path, tasks_path, to_label_value

LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def test_paths_follow_the_kubernetes_api() -> None:
    assert tasks_path() == "/apis/perllm.io/v1alpha1/llminferencetasks"
    assert task_status_path("a", "b") == "/apis/perllm.io/v1alpha1/namespaces/a/llminferencetasks/b/status"


def test_label_value_stays_as_it_is_when_it_is_one() -> None:
    assert to_label_value("llama-3.1_8B") == "llama-3.1_8B"


@pytest.mark.parametrize("text", ["meta-llama/Llama-3.1-8B", "x" * 64, "-a-", "///", "/" * 70 + "a" * 70])
def test_any_text_becomes_a_valid_label_value(text: str) -> None:
    value = to_label_value(text)

    assert len(value) <= 63
    assert LABEL_VALUE.fullmatch(value)


def test_different_models_keep_different_label_values() -> None:
    assert to_label_value("a/b") != to_label_value("a:b")
