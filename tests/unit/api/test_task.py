from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from perllm.api.prompt import MAX_PROMPT_LENGTH, MAX_PROMPTS
from perllm.api.task import OnDeadlineMissed, OnInfeasible, TaskSpec, Tier
from perllm.api.task_status import Condition, DecisionStatus, Observation, TaskPhase, TaskStatus

TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "llm"}]}}


def make_spec(**changes: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {"model": "llama", "promptTokens": 10, "deadline": "30s", "template": TEMPLATE, **changes}
    )


def test_only_model_prompt_deadline_and_template_are_needed() -> None:
    spec = make_spec()

    assert spec.output_tokens is None
    assert spec.input_size_bytes == 0
    assert spec.deadline_s == 30
    assert (spec.priority, spec.retries, spec.ttl_after_finished_s) == (0, 0, None)
    assert spec.allowed_tiers == {Tier.EDGE, Tier.CLOUD}
    assert spec.on_infeasible is OnInfeasible.BEST_EFFORT
    assert spec.on_deadline_missed is OnDeadlineMissed.CONTINUE


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "qwen2.5:7b", "/models/x.gguf", "./x.gguf", "_own"])
def test_a_model_has_the_name_that_its_server_gives_it_such_as_the_path_of_its_weights(name: str) -> None:
    assert make_spec(model=name).model == name


def test_quantities_and_durations_are_given_as_numbers_with_units() -> None:
    spec = make_spec(inputBytes="2Mi", deadline="1m30s", ttlAfterFinished="1h", tiers=["edge"])

    assert spec.input_size_bytes == 2 * 2**20
    assert spec.deadline_s == 90
    assert spec.ttl_after_finished_s == 3600
    assert spec.allowed_tiers == {Tier.EDGE}


@pytest.mark.parametrize(
    "change",
    [
        {"deadline": "0s"},
        {"deadline": "25h"},
        {"deadline": "soon"},
        {"promptTokens": 0},
        {"promptTokens": -1},
        {"outputTokens": 0},
        {"inputBytes": -1},
        {"inputBytes": "2MiB"},
        {"inputBytes": "2Ti"},
        {"tiers": ["moon"]},
        {"tiers": ["edge", "edge"]},
        {"tiers": []},
        {"retries": 11},
        {"priority": 1001},
        {"model": "a model"},
        {"template": {"spec": {"containers": []}}},
        {"template": {}},
        {"dedline": "30s"},
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_spec(**change)


PROMPTED = {"template": None, "promptTokens": None}


def test_the_tokens_of_several_prompts_are_those_of_all_requests() -> None:
    spec = make_spec(**PROMPTED, prompts=["x" * 400, "y" * 800], system="z" * 40)

    assert spec.expect_prompt_tokens(0.25) == (440 + 840) / 4
    assert spec.input_size_bytes == 440 + 840
    assert [message.content[0] for conversation in spec.conversations for message in conversation] == [*"zxzy"]


def test_a_single_prompt_is_a_conversation_and_a_template_is_none() -> None:
    spec = make_spec(**PROMPTED, prompt="Hi", system="Be brief.")

    (conversation,) = spec.conversations
    assert [message.content for message in conversation] == ["Be brief.", "Hi"]
    assert make_spec().conversations == ()


@pytest.mark.parametrize(
    "prompts",
    [[], [""], ["x"] * (MAX_PROMPTS + 1), ["x" * MAX_PROMPT_LENGTH, "y"]],
    ids=["none", "an empty one", "too many", "too long together"],
)
def test_several_prompts_have_limits(prompts: list[str]) -> None:
    with pytest.raises(ValidationError):
        make_spec(**PROMPTED, prompts=prompts)


def test_a_system_message_counts_once_however_many_prompts_there_are() -> None:
    make_spec(**PROMPTED, prompts=["x"] * 10, system="z" * (MAX_PROMPT_LENGTH - 10))
    with pytest.raises(ValidationError):
        make_spec(**PROMPTED, prompts=["x"] * 10, system="z" * (MAX_PROMPT_LENGTH - 9))


def test_status_survives_the_way_through_kubernetes() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    status = TaskStatus(
        phase=TaskPhase.RUNNING,
        received_time=now,
        decision=DecisionStatus(policy="cs-ucb", predicted_latency=1.5, rejected={"memory": 2}),
        observed=Observation(latency=2.25, energy_joules=None),
        conditions=(Condition(type="Accepted", status="True", last_transition_time=now, reason="Valid"),),
    )

    assert TaskStatus.model_validate(status.to_object()) == status


def test_status_is_written_without_absent_values_and_with_microseconds() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    written = TaskStatus(received_time=now, observed=Observation(latency=1.23456)).to_object()

    assert written["receivedTime"] == "2026-01-02T03:04:05.678901Z"
    assert written["observed"] == {"latency": 1.235}
    assert "deadlineMet" not in written


def test_status_of_a_newer_version_can_be_read() -> None:
    assert TaskStatus.model_validate({"phase": "Failed", "invented": 1}).phase.is_final


SERVED = {"template": None, "prompt": "Hi"}


@pytest.mark.parametrize(
    ("changes", "service"),
    [
        ({}, ""),
        ({"service": "search"}, "search"),
        ({**SERVED, "service": "search", "system": "Be brief."}, "search"),
        (SERVED, ""),
        ({**SERVED, "maxTokens": 50}, "e3b0c44298fc-50"),
    ],
)
def test_a_task_belongs_to_the_service_that_it_names_or_that_its_prompt_is_made_for(
    changes: dict[str, Any], service: str
) -> None:
    assert make_spec(**changes).service_name == service


def test_tasks_of_one_system_message_are_a_service_however_it_is_given() -> None:
    brief, same = (
        make_spec(**SERVED, system="Be brief."),
        make_spec(
            template=None,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a node?"}],
        ),
    )
    assert brief.service_name == same.service_name != ""
    assert brief.service_name != make_spec(**SERVED, system="Be thorough.").service_name
