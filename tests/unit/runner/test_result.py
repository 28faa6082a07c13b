from pathlib import Path
from random import Random
from typing import Any

import pytest

from perllm.api.report import RunReport
from perllm.cluster.client import ApiError, ApiUnreachableError, PatchKind
from perllm.completions.answer import Answer
from perllm.runner import config_map
from perllm.runner.errors import ResultError
from perllm.runner.prompts import Prompt
from perllm.runner.result import Destination, DestinationKind, write_file, write_termination_message


class FakeClient:
    """Fails as told, then takes the patch."""

    def __init__(self, *failures: ApiError) -> None:
        self.failures = list(failures)
        self.patches: list[tuple[str, Any, PatchKind]] = []

    async def patch(self, path: str, body: Any, *, kind: PatchKind) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        self.patches.append((path, body, kind))
        return {}


async def store(client: FakeClient) -> list[float]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    await config_map.apply(
        client,
        "team",
        "answers",
        RunReport(output_tokens=3),
        [Answer()],
        rng=Random(0),
        sleep=sleep,
        now=lambda: sum(pauses),
    )  # type: ignore[arg-type]
    return pauses


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("termination", Destination(DestinationKind.TERMINATION)),
        ("configmap:answers", Destination(DestinationKind.CONFIG_MAP, "answers")),
        ("file:/out/a:b.jsonl", Destination(DestinationKind.FILE, "/out/a:b.jsonl")),
    ],
)
def test_places(text: str, destination: Destination) -> None:
    assert Destination.parse(text) == destination
    assert destination.location == (None if destination.kind is DestinationKind.TERMINATION else text)


@pytest.mark.parametrize("text", ["", "configmap", "configmap:", "termination:x", "s3:bucket"])
def test_other_places_are_refused_with_the_right_ones_named(text: str) -> None:
    with pytest.raises(ValueError, match="write termination, configmap:NAME or file:PATH"):
        Destination.parse(text)


@pytest.mark.parametrize("text", ["configmap:Answers", "configmap:a/b", "configmap:a?b", "file:/" + "x" * 300])
def test_names_that_cannot_be_stored_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a name for a ConfigMap|longer than 256 characters"):
        Destination.parse(text)


async def test_config_map_is_applied_with_report_and_answers() -> None:
    client = FakeClient()
    await store(client)

    [(path, body, kind)] = client.patches
    assert path == "/api/v1/namespaces/team/configmaps/answers?fieldManager=perllm-runner&force=true"
    assert kind is PatchKind.APPLY
    assert body["data"] == {
        "report.json": '{"outputTokens":3}',
        "answers.jsonl": '{"index":0,"text":"","outputTokens":0,"tokenSource":"chunks","problem":"was not asked"}\n',
    }


@pytest.mark.parametrize("second", [ApiError(429, "TooManyRequests", "later"), ApiError(409, "Conflict", "a quota")])
async def test_api_server_that_is_away_or_has_a_conflict_is_asked_again(second: ApiError) -> None:
    client = FakeClient(ApiUnreachableError("away"), second)

    first_s, second_s = await store(client)
    assert 0.25 <= first_s <= 0.5 <= second_s <= 1.0
    assert len(client.patches) == 1


async def test_missing_rights_are_told_at_once() -> None:
    with pytest.raises(ResultError, match="Let the pod's service account create and patch configmaps"):
        await store(FakeClient(ApiError(403, "Forbidden", "no")))


async def test_api_server_may_be_away_for_minutes() -> None:
    client = FakeClient(*[ApiUnreachableError("away")] * 20)

    assert 120.0 <= sum(await store(client)) <= 300.0
    assert len(client.patches) == 1


async def test_api_server_that_stays_away_is_given_up() -> None:
    with pytest.raises(ResultError, match="ConfigMap team/answers cannot be written"):
        await store(FakeClient(*[ApiUnreachableError("away")] * 100))


async def test_whether_a_config_map_may_be_written_is_known_before_there_are_answers() -> None:
    client = FakeClient()
    await config_map.rehearse(client, "team", "answers")  # type: ignore[arg-type]

    [(path, body, kind)] = client.patches
    assert path == "/api/v1/namespaces/team/configmaps/answers?fieldManager=perllm-runner&force=true&dryRun=All"
    assert (body["data"], kind) == ({}, PatchKind.APPLY)
    with pytest.raises(ResultError, match="Let the pod's service account create and patch configmaps"):
        await config_map.rehearse(FakeClient(ApiError(403, "Forbidden", "no")), "team", "answers")  # type: ignore[arg-type]


async def test_an_api_server_that_is_away_before_there_are_answers_may_come_back() -> None:
    await config_map.rehearse(FakeClient(ApiUnreachableError("away")), "team", "answers")  # type: ignore[arg-type]


async def test_more_prompts_than_a_config_map_has_room_for_are_not_asked() -> None:
    with pytest.raises(ResultError, match="10000 answers do not fit into 1000000 bytes: write them to a file"):
        await config_map.check("team", "answers", [Prompt(messages=({"role": "user", "content": "?"},))] * 10_000)


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("old and long")

    write_file(file, b"new")

    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("answers.jsonl", "new")]


def test_folder_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="Mount a volume there"):
        write_file(tmp_path / "missing" / "answers.jsonl", b"")


def test_outside_of_a_container_the_report_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    write_termination_message(tmp_path / "termination-log", "the report")

    assert "the report" in caplog.text
    assert not list(tmp_path.iterdir())
