import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perllm.api.report import RunReport, TokenSource, parse_run_report
from perllm.runner import config_map
from perllm.runner.errors import ExitCode, ResultError
from perllm.runner.job import Settings, run
from perllm.runner.patience import AnswerPatience, Sampling
from perllm.runner.prompts import Prompt, collect_prompts
from perllm.runner.result import Destination
from unit.completions.model_server import (
    ANSWER,
    FakeModelServer,
    Handler,
    chunk,
    encode,
    hang,
    hang_up,
    refuse,
    stream,
)

FAR_S = 3600.0


@pytest.fixture
def settings(model_server: FakeModelServer, tmp_path: Path) -> Settings:
    log = tmp_path / "termination-log"
    log.touch()
    return Settings(
        url=model_server.url,
        api_key=None,
        sampling=Sampling("m"),
        patience=AnswerPatience(wait_s=0.0, timeout_s=30.0),
        concurrency=1,
        deadline_unix_s=None,
        destination=Destination(),
        namespace="team",
        termination_log=log,
        termination_bytes=4096,
        is_quiet=False,
    )


def prompts(*texts: str) -> tuple[Prompt, ...]:
    return collect_prompts(texts or ("Hi",), [], None, None)


def read_report(settings: Settings) -> RunReport:
    report = parse_run_report(settings.termination_log.read_text())
    assert report is not None
    return report


async def test_termination_message_tells_text_tokens_and_times(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before_s = time.time()
    code = await run(settings, prompts())

    report = read_report(settings)
    window = report.inference_window()
    assert (code, report.text, report.problem) == (ExitCode.DONE, "Hello there", None)
    assert (report.prompt_tokens, report.output_tokens, report.token_source) == (11, 7, TokenSource.USAGE)
    assert window is not None
    assert before_s - 0.01 <= window[0] <= window[1] <= time.time() + 0.01
    assert report.time_to_first_token_seconds is not None
    assert report.inference_seconds is not None
    assert 0 < report.time_to_first_token_seconds <= report.inference_seconds
    assert capsys.readouterr().out == "Hello there\n"


async def test_key_is_sent_and_shown_nowhere(
    settings: Settings,
    model_server: FakeModelServer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    model_server.script = [refuse(401, {"error": {"message": "Wrong key: sk-secret"}})]

    code = await run(dataclasses.replace(settings, api_key="sk-secret"), prompts())

    output = capsys.readouterr()
    assert (code, model_server.keys) == (ExitCode.REJECTED, ["Bearer sk-secret"])
    assert "sk-secret" not in output.out + output.err + caplog.text + settings.termination_log.read_text()


async def test_several_answers_go_to_a_file_and_the_report_says_where(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = Destination.parse(f"file:{tmp_path / 'answers.jsonl'}")

    code = await run(dataclasses.replace(settings, destination=destination), prompts("a", "b"))

    lines = (tmp_path / "answers.jsonl").read_text()
    report = read_report(settings)
    assert code == ExitCode.DONE
    assert [json.loads(line)["text"] for line in lines.splitlines()] == ["Hello there"] * 2
    assert (report.result, report.text, report.output_tokens) == (destination.location, None, 14)
    assert capsys.readouterr().out == lines


@pytest.fixture
def to_file(settings: Settings, tmp_path: Path) -> Settings:
    destination = Destination.parse(f"file:{tmp_path / 'answers.jsonl'}")
    return dataclasses.replace(settings, destination=destination, is_quiet=True, is_resumed=True)


def read_lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def answers_of(*texts: str) -> list[Handler]:
    return [stream(encode(chunk(text, "stop"))) for text in texts]


async def test_each_answer_is_in_a_file_as_soon_as_it_has_ended(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    found: list[object] = []

    async def look(request: object) -> None:
        found.extend(line["text"] for line in read_lines(tmp_path / ".answers.jsonl.partial"))
        assert not (tmp_path / "answers.jsonl").exists()

    model_server.script = [*answers_of("one", "two"), stream(encode(chunk("three", "stop")), then=look)]  # type: ignore[arg-type]

    assert await run(to_file, prompts("a", "b", "c")) == ExitCode.DONE
    assert found == ["one", "two"]
    assert not (tmp_path / ".answers.jsonl.partial").exists()


async def test_a_run_that_is_resumed_asks_only_what_has_no_answer_yet(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    model_server.script = [*answers_of("one"), refuse(400), *answers_of("three")]
    assert await run(to_file, prompts("a", "b", "c")) == ExitCode.REJECTED
    first = read_lines(tmp_path / "answers.jsonl")

    model_server.script = answers_of("two")
    assert await run(to_file, prompts("a", "b", "c")) == ExitCode.DONE

    second, report = read_lines(tmp_path / "answers.jsonl"), read_report(to_file)
    assert [line["text"] for line in second] == ["one", "two", "three"]
    assert (second[0], second[2]) == (first[0], first[2])
    assert len(model_server.requests) == 4
    assert (report.output_tokens, report.prompts) == (1, 3)
    assert not (tmp_path / ".answers.jsonl.partial").exists()


async def test_a_run_that_died_while_it_wrote_a_line_loses_only_that(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    model_server.script = [*answers_of("one", "two"), refuse(400)]
    await run(to_file, prompts("a", "b", "c"))
    partial = tmp_path / ".answers.jsonl.partial"
    written = partial.read_bytes()
    partial.write_bytes(written[: written.index(b"two")])

    model_server.script = [*answers_of("two again"), refuse(400)]
    await run(to_file, prompts("a", "b", "c"))
    model_server.script = answers_of("three")
    await run(to_file, prompts("a", "b", "c"))

    lines = read_lines(tmp_path / "answers.jsonl")
    assert [line["text"] for line in lines] == ["one", "two again", "three"]


async def test_answers_to_other_requests_are_not_kept(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    model_server.script = [*answers_of("one", "two"), refuse(400)]
    await run(to_file, prompts("a", "b", "c"))

    other = dataclasses.replace(to_file, sampling=Sampling("other"))
    model_server.script = answers_of("1", "2", "3")
    await run(other, prompts("a", "b", "c"))

    assert [line["text"] for line in read_lines(tmp_path / "answers.jsonl")] == ["1", "2", "3"]


async def test_a_run_that_is_not_resumed_asks_everything_again(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    model_server.script = [*answers_of("one"), refuse(400)]
    await run(to_file, prompts("a", "b"))

    model_server.script = answers_of("1", "2")
    await run(dataclasses.replace(to_file, is_resumed=False), prompts("a", "b"))

    assert [line["text"] for line in read_lines(tmp_path / "answers.jsonl")] == ["1", "2"]


async def test_a_run_that_had_nothing_left_to_ask_reports_that_it_wrote_nothing(
    to_file: Settings, tmp_path: Path, model_server: FakeModelServer
) -> None:
    """It took no time for its tokens, from which nothing must be learned."""
    model_server.script = [*answers_of("one"), refuse(400)]
    await run(to_file, prompts("a", "b"))

    assert await run(to_file, prompts("a")) == ExitCode.DONE

    assert read_report(to_file).output_tokens == 0
    assert len(model_server.requests) == 2


async def test_prompts_are_asked_at_the_same_time_if_asked_to(
    settings: Settings, model_server: FakeModelServer
) -> None:
    both = asyncio.Barrier(2)

    async def meet(request: object) -> None:
        await both.wait()

    model_server.script = [stream(encode(chunk("x", "stop")), then=meet)] * 2  # type: ignore[arg-type]

    assert await run(dataclasses.replace(settings, concurrency=5), prompts("a", "b")) == ExitCode.DONE


async def test_refused_prompt_does_not_stop_the_others(settings: Settings, model_server: FakeModelServer) -> None:
    model_server.script = [refuse(400, {"error": {"message": "too long"}})]

    code = await run(settings, prompts("a", "b"))

    report = read_report(settings)
    assert (code, report.text) == (ExitCode.REJECTED, "Hello there")
    assert "too long" in (report.problem or "")


async def test_lost_server_counts_more_than_a_refused_prompt(settings: Settings, model_server: FakeModelServer) -> None:
    model_server.script = [refuse(400), stream(encode(chunk("half an")), then=hang_up)]

    code = await run(settings, prompts("a", "b"))

    assert code == ExitCode.UNREACHABLE
    assert "aborted the answer" in (read_report(settings).problem or "")


async def test_lost_server_ends_the_run_and_what_came_is_reported(
    settings: Settings, model_server: FakeModelServer
) -> None:
    model_server.script = [stream(encode(chunk("half an")), then=hang_up)] * 2

    code = await run(settings, prompts("a", "b", "c"))

    report = read_report(settings)
    assert (code, len(model_server.requests)) == (ExitCode.UNREACHABLE, 2)
    assert (report.text, report.output_tokens, report.token_source) == ("half an\n\nhalf an", 2, TokenSource.CHUNKS)
    assert "aborted the answer" in (report.problem or "")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (refuse(500, {"error": {"message": "no template"}}), ExitCode.UNREACHABLE),
        (stream(encode(chunk("half an")), then=hang_up), ExitCode.UNREACHABLE),
        (stream(encode(chunk("half an")), then=hang), ExitCode.OUT_OF_TIME),
    ],
    ids=["fails", "aborts", "never ends"],
)
async def test_a_prompt_on_which_the_server_fails_does_not_keep_the_others_from_being_answered(
    settings: Settings, model_server: FakeModelServer, failure: Handler, code: ExitCode
) -> None:
    fine = stream(ANSWER)
    model_server.script = [failure, fine, failure, refuse(400), fine]
    patience = AnswerPatience(wait_s=0.0, timeout_s=1.0)

    ended = await run(dataclasses.replace(settings, patience=patience), prompts(*"abcde"))

    report = read_report(settings)
    assert (ended, len(model_server.requests)) == (code, 5)
    assert (report.text or "").count("Hello there") == 2


async def test_a_server_that_is_gone_is_not_asked_for_each_prompt(
    settings: Settings, model_server: FakeModelServer
) -> None:
    model_server.script = [refuse(503)]

    assert await run(settings, prompts("a", "b")) == ExitCode.UNREACHABLE
    assert len(model_server.requests) == 1


async def test_waiting_for_a_server_is_no_inference(settings: Settings, model_server: FakeModelServer) -> None:
    model_server.script = [refuse(503)]

    code = await run(settings, prompts())

    report = read_report(settings)
    assert code == ExitCode.UNREACHABLE
    assert "was not ready within 0 s" in (report.problem or "")
    assert (report.inference_seconds, report.output_tokens, report.token_source) == (None, None, None)


async def test_deadline_ends_the_run_and_what_came_is_reported(
    settings: Settings, model_server: FakeModelServer
) -> None:
    model_server.script = [stream(encode(chunk("half an")), then=hang)]

    code = await run(dataclasses.replace(settings, deadline_unix_s=time.time() + 1.0), prompts())

    report = read_report(settings)
    assert (code, report.text) == (ExitCode.OUT_OF_TIME, "half an")
    assert report.problem == "the deadline passed: 0 of 1 prompts were answered"


async def test_passed_deadline_keeps_the_server_free(settings: Settings, model_server: FakeModelServer) -> None:
    code = await run(dataclasses.replace(settings, deadline_unix_s=time.time() - 1), prompts())

    assert (code, model_server.requests) == (ExitCode.OUT_OF_TIME, [])
    assert read_report(settings).inference_seconds is None


async def test_sigterm_ends_the_run_and_what_came_is_reported(
    settings: Settings, model_server: FakeModelServer
) -> None:
    async def stop(request: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    model_server.script = [stream(encode(chunk("half an")), then=stop)]  # type: ignore[arg-type]

    code = await run(settings, prompts())

    report = read_report(settings)
    assert (code, report.text) == (143, "half an")
    assert report.problem == "stopped by SIGTERM: 0 of 1 prompts were answered"


async def test_lost_result_has_its_own_code_and_the_report_tells_of_it(settings: Settings) -> None:
    destination = Destination.parse("file:/missing/answers.jsonl")

    code = await run(dataclasses.replace(settings, destination=destination, is_quiet=True), prompts())

    report = read_report(settings)
    assert (code, report.result, report.output_tokens) == (ExitCode.RESULT_LOST, None, 7)
    assert "cannot be written" in (report.problem or "")


async def accept(*_: object) -> None:
    """Find no fault with a destination."""


async def test_prompts_are_not_asked_if_their_answers_could_not_be_stored(
    settings: Settings, model_server: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse_it(*_: object) -> None:
        raise ResultError("ConfigMap team/answers cannot be written")

    monkeypatch.setattr(config_map, "check", refuse_it)

    code = await run(dataclasses.replace(settings, destination=Destination.parse("configmap:answers")), prompts())

    report = read_report(settings)
    assert (code, model_server.requests) == (ExitCode.RESULT_LOST, [])
    assert (report.problem, report.result) == ("ConfigMap team/answers cannot be written", None)


async def test_report_is_there_before_the_api_server_is_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunReport] = []

    async def store(*args: object) -> None:
        seen.append(read_report(settings))

    monkeypatch.setattr(config_map, "store", store)
    monkeypatch.setattr(config_map, "check", accept)

    await run(dataclasses.replace(settings, destination=Destination.parse("configmap:answers")), prompts())

    assert [(one.output_tokens, one.result) for one in seen] == [(7, None)]
    assert read_report(settings).result == "configmap:answers"


async def test_quiet_prints_nothing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    await run(dataclasses.replace(settings, is_quiet=True), prompts())

    assert capsys.readouterr().out == ""


@pytest.fixture
def full_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output that takes nothing more, as on a disk that is full."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        yield


@pytest.mark.usefixtures("full_output")
@pytest.mark.parametrize("asked", [("a",), ("a", "b", "c")])
async def test_an_output_that_takes_nothing_more_costs_no_answer(
    settings: Settings, model_server: FakeModelServer, asked: tuple[str, ...]
) -> None:
    code = await run(settings, prompts(*asked))
    report = read_report(settings)
    assert (code, report.problem, report.text) == (ExitCode.DONE, None, "\n\n".join(["Hello there"] * len(asked)))
    assert len(model_server.requests) == len(asked)
