"""What a prompt is taken to have in tokens, before a server counts them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from perllm.api.served_run import PromptCounts, RunEnd, ServedRun
from perllm.api.task import TaskSpec
from perllm.controller.prompt_ratios import MAX_MODELS, PromptRatios

START = datetime(2026, 1, 1, tzinfo=UTC)
ENGLISH = 0.25


def build_spec(characters: int, model: str = "m") -> TaskSpec:
    return TaskSpec(model=model, deadline="5s", prompt="x" * characters)


def build_run(prompt_tokens: int | None, **fields: Any) -> ServedRun:
    return ServedRun.model_validate(
        {"attempt": 1, "end": RunEnd.ANSWERED, "start_time": START, "end_time": START, "prompt_tokens": prompt_tokens}
        | fields
    )


def test_it_starts_at_that_of_english_and_moves_to_what_servers_count() -> None:
    ratios = PromptRatios()
    assert ratios.find("m") == ENGLISH
    ratios.learn(build_spec(100), build_run(150))
    assert ENGLISH < ratios.find("m") < 0.35
    for _ in range(300):
        ratios.learn(build_spec(100), build_run(150))
    assert ratios.find("m") == pytest.approx(1.5, rel=0.01)
    assert ratios.find("other") == ENGLISH


@pytest.mark.parametrize(
    "run",
    [
        build_run(None),
        build_run(150, end=RunEnd.FAILED),
        build_run(150, prompts=PromptCounts(total=2, answered=1, failed=1)),
        build_run(1),
        build_run(1000),
    ],
    ids=["not counted", "failed", "not all prompts", "too few", "too many"],
)
def test_nothing_is_learned_from(run: ServedRun) -> None:
    ratios = PromptRatios()
    ratios.learn(build_spec(100), run)
    assert ratios.find("m") == ENGLISH


def test_models_that_were_not_asked_for_long_are_forgotten() -> None:
    ratios = PromptRatios()
    for model in ("old", *(f"m-{number}" for number in range(MAX_MODELS))):
        ratios.learn(build_spec(100, model), build_run(150))
    assert ratios.find("old") == ENGLISH
    assert ratios.find(f"m-{MAX_MODELS - 1}") > ENGLISH
