from typing import Any

import pytest

from perllm.api.prompt import MAX_PROMPT_LENGTH
from perllm.api.task import TaskSpec
from perllm.runner.prompts import PlacedPrompt, PromptError
from perllm.submission.batch import MAX_NAME_LENGTH, Batch, BatchError, build_batch
from unit.submission.batches import COMMON, batch, placed


def build(*prompts: PlacedPrompt, name: str | None = None, stem: str = "", **common: Any) -> Batch:
    return build_batch(prompts, {**COMMON, **common}, namespace="team", name=name, stem=stem)


def test_a_prompt_is_a_task_with_what_all_have_in_common() -> None:
    (task,) = build(placed("Hi", id="x"), priority=3).tasks

    assert (task.index, task.id) == (0, "x")
    assert task.spec == TaskSpec.model_validate(
        {"model": "m", "deadline": "60s", "priority": 3, "messages": [{"role": "user", "content": "Hi"}]}
    )


def test_the_parameters_of_a_line_precede_those_of_the_command() -> None:
    first, second = build(placed("a", max_tokens=5, temperature=0.0), placed("b"), max_tokens=9, temperature=1.0).tasks

    assert (first.spec.max_tokens, first.spec.temperature) == (5, 0.0)
    assert (second.spec.max_tokens, second.spec.temperature) == (9, 1.0)


def test_a_line_may_name_its_model_and_must_if_the_command_does_not() -> None:
    common = {"deadline": "60s"}
    own = build_batch([placed("a", model="other")], {**COMMON, **common}, namespace="team", name="b", stem="")
    assert own.tasks[0].spec.model == "other"
    with pytest.raises(PromptError, match=r"a\.jsonl, line 1, model: Field required"):
        build_batch([placed("a")], common, namespace="team", name="b", stem="")


def test_names_are_the_same_for_the_same_contents_and_differ_for_others() -> None:
    assert batch("a", "b") == batch("a", "b")
    kept, changed = batch("a", "b").tasks, batch("a", "c").tasks
    assert kept[0].name == changed[0].name
    assert kept[1].name != changed[1].name
    assert kept[0].name != batch("a", "b", deadline="9s").tasks[0].name


def test_equal_prompts_are_tasks_of_their_own() -> None:
    assert len({task.name for task in batch("a", "a").tasks}) == 2


def test_a_batch_without_a_name_is_named_after_its_file_and_its_contents() -> None:
    made = build(placed("a"), stem="My Prompts_1 ").name

    assert made.startswith("my-prompts-1-")
    assert made == build(placed("a"), stem="My Prompts_1 ").name
    assert made != build(placed("b"), stem="My Prompts_1 ").name
    assert len(build(placed("a"), stem="x" * 99).name) <= MAX_NAME_LENGTH
    assert build(placed("a"), stem="質問").name.startswith("prompts-")


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "x" * 41])
def test_a_name_that_tasks_cannot_have_is_an_error(name: str) -> None:
    with pytest.raises(BatchError, match="is not a valid name"):
        build(placed("a"), name=name)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (placed("x" * (MAX_PROMPT_LENGTH + 1), line=7), r"a\.jsonl, line 7, .*at most 131072 characters"),
        (placed("x", line=8, max_tokens=10**9), r"a\.jsonl, line 8, max_tokens"),
        (placed("", line=9), r"a\.jsonl, line 9, messages\.0\.content"),
    ],
)
def test_a_prompt_beyond_the_limits_is_named_by_its_line(prompt: PlacedPrompt, problem: str) -> None:
    with pytest.raises(PromptError, match=problem):
        build(placed("good"), prompt)


def test_an_invalid_option_is_no_fault_of_a_line() -> None:
    with pytest.raises(BatchError, match=r"^deadline: "):
        build(placed("a"), deadline="soon")


def test_a_batch_has_a_prompt() -> None:
    with pytest.raises(PromptError, match="there is no prompt"):
        build()
