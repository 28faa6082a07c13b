import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from perllm.api import names
from perllm.cli import main
from perllm.cluster.client import Object
from perllm.submission import execution
from unit.cluster.fake_api import FakeClient
from unit.submission.batches import TASKS

ENDS = {
    "good": {"phase": "Succeeded", "result": {"text": "fine"}, "deadlineMet": True},
    "late": {"phase": "Succeeded", "result": {"text": "fine"}, "deadlineMet": False},
    "bad": {"phase": "Failed"},
}


class Cluster(FakeClient):
    """Finishes each task at once; what the prompt is decides how."""

    async def post(self, path: str, body: Any, **query: str) -> Object:
        item = await super().post(path, body, **query)
        ends = ENDS[body["spec"]["messages"][-1]["content"]]
        finish = partial(self.store, f"{path}/{item['metadata']['name']}", status=ends)
        asyncio.get_running_loop().call_soon(finish)
        return item


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(execution, "Client", cluster)
    monkeypatch.setattr(execution, "load_credentials", lambda *_: None)
    monkeypatch.setattr(execution, "find_default_namespace", lambda *_: "team")
    return cluster


def submit(*arguments: object, stdin: str | None = None) -> Result:
    options = [str(one) for one in ("submit", "--model", "m", "--deadline", "60s", *arguments)]
    return CliRunner().invoke(main, options, input=stdin)


def specs(cluster: Cluster) -> list[dict[str, Any]]:
    return [body["spec"] for _, body in cluster.calls_of("POST")]


def test_a_file_of_prompts_becomes_a_file_of_answers(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "good", "id": "x"}\n{"prompt": "good"}\n')

    result = submit("--file", tmp_path / "p.jsonl", "--output", tmp_path / "a.jsonl")

    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = [orjson.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert sorted((line["index"], line.get("id"), line["phase"]) for line in lines) == [
        (0, "x", "Succeeded"),
        (1, None, "Succeeded"),
    ]


def test_a_repeated_command_creates_nothing_and_writes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("good\nbad\n")
    once = submit("--file", tmp_path / "p.txt", "--output", tmp_path / "a.jsonl")
    content, calls = (tmp_path / "a.jsonl").read_bytes(), len(cluster.calls_of("POST"))

    again = submit("--file", tmp_path / "p.txt", "--output", tmp_path / "a.jsonl")

    assert (once.exit_code, again.exit_code) == (1, 1)
    assert again.stderr == once.stderr
    assert ((tmp_path / "a.jsonl").read_bytes(), len(cluster.calls_of("POST"))) == (content, calls)


@pytest.mark.parametrize(("options", "queue"), [((), None), (("--queue", "team-queue"), "team-queue")])
def test_tasks_are_in_the_queue_that_is_named(cluster: Cluster, options: tuple[str, ...], queue: str | None) -> None:
    assert submit("--prompt", "good", *options).exit_code == 0
    ((_, body),) = cluster.calls_of("POST")
    assert body["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == queue


def test_the_text_of_a_single_prompt_is_printed(cluster: Cluster) -> None:
    result = submit("--prompt", "good")

    assert (result.exit_code, result.stdout) == (0, "fine\n")


def test_a_prompt_without_an_answer_is_exit_code_1(cluster: Cluster) -> None:
    result = submit("--file", "-", stdin="good\nbad\n")

    assert result.exit_code == 1
    assert "1 answered, 1 failed" in result.stderr
    assert sorted(orjson.loads(line)["phase"] for line in result.stdout.splitlines()) == ["Failed", "Succeeded"]


def test_an_answer_that_comes_late_is_exit_code_3_unless_another_is_missing(cluster: Cluster) -> None:
    assert submit("--file", "-", stdin="good\nlate\n").exit_code == 3
    assert submit("--file", "-", stdin="late\nbad\n").exit_code == 1


def test_of_a_single_prompt_it_is_said_on_request_where_it_ran(cluster: Cluster) -> None:
    result = submit("--prompt", "late", "--wait")

    assert (result.exit_code, result.stdout) == (3, "fine\n")
    assert "LATE, complete" in result.stderr


@pytest.mark.parametrize(("prompt", "said"), [("good", "in time, complete"), ("bad", "failed: no reason given")])
def test_where_it_ran_is_said_before_the_task_is_deleted(cluster: Cluster, prompt: str, said: str) -> None:
    result = submit("--prompt", prompt, "--wait", "--delete")

    assert said in result.stderr
    assert len(cluster.calls_of("DELETE")) == 1


def test_an_invalid_line_creates_nothing(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "good"}\n{"prompt": "good", "max_tokens": 99999999}\n')

    result = submit("--file", tmp_path / "p.jsonl", "--output", tmp_path / "a.jsonl")

    assert result.exit_code == 2
    assert "p.jsonl, line 2, max_tokens" in result.stderr
    assert cluster.calls == []
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tier", "moon", "tiers.0: Input should be 'edge' or 'cloud'"),
        ("--priority", 1001, "priority: Input should be less than or equal to 1000"),
        ("--retries", -1, "retries: Input should be greater than or equal to 0"),
        ("--on-infeasible", "Give up", "Input should be 'BestEffort' or 'Reject'"),
    ],
)
def test_an_option_that_no_task_may_have_creates_nothing(
    cluster: Cluster, option: str, value: object, said: str
) -> None:
    result = submit("--prompt", "good", option, value)

    assert result.exit_code == 2
    assert said in result.stderr
    assert cluster.calls == []


def test_options_are_fields_of_each_task(cluster: Cluster) -> None:
    sampling = ("--system", "Be brief.", "--max-tokens", 5, "--temperature", 0, "--seed", 7)
    rules = ("--priority", 2, "--tier", "edge", "--retries", 1, "--on-infeasible", "Reject", "--ttl", "1h")

    assert submit("--prompt", "good", *sampling, *rules).exit_code == 0

    assert specs(cluster) == [
        {
            "model": "m",
            "deadline": "60s",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "good"}],
            "maxTokens": 5,
            "temperature": 0.0,
            "seed": 7,
            "priority": 2,
            "tiers": ["edge"],
            "retries": 1,
            "onInfeasible": "Reject",
            "onDeadlineMissed": "Continue",
            "ttlAfterFinished": "1h",
            "inputBytes": 0,
            "whenToRun": "Soonest",
            "minHitChance": 0.95,
            "suspend": False,
        }
    ]


def test_the_namespace_is_that_of_the_context_unless_it_is_given(cluster: Cluster) -> None:
    submit("--prompt", "good")
    submit("--prompt", "good", "--namespace", "other")

    assert [path for path, _ in cluster.calls_of("POST")] == [TASKS, names.tasks_path("other")]


def test_requests_of_openais_batch_api_become_its_responses_and_are_not_made_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    requests = [
        {"custom_id": f"q-{text}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for text in ("good", "bad")
        for body in [{"model": "own", "messages": [{"role": "user", "content": text}], "max_tokens": 5}]
    ]
    (tmp_path / "p.JSONL").write_bytes(b"\n".join(map(orjson.dumps, requests)))
    arguments = ("--file", tmp_path / "p.JSONL", "--output", tmp_path / "a.jsonl", "--format", "openai")

    once, again = submit(*arguments), submit(*arguments)

    lines = [orjson.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    answers = {line["custom_id"]: line["response"] and line["response"]["body"]["choices"][0] for line in lines}
    assert answers["q-good"]["message"]["content"] == "fine"
    assert answers["q-bad"] is None
    assert [(spec["model"], spec["maxTokens"]) for spec in specs(cluster)] == [("own", 5)] * 2
    assert again.stderr == once.stderr
