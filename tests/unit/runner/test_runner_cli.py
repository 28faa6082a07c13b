import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perllm.runner import cli
from perllm.runner.errors import ExitCode
from perllm.runner.job import Settings
from perllm.runner.printer import AnswerPrinter
from perllm.runner.prompts import Prompt


class Recorder:
    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.prompts: tuple[Prompt, ...] = ()

    async def run(self, settings: Settings, prompts: tuple[Prompt, ...]) -> int:
        self.settings, self.prompts = settings, prompts
        return ExitCode.REJECTED


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(cli, "run", recorder.run)
    for name in ("PERLLM_URL", "PERLLM_MODEL", "PERLLM_DEADLINE", "NODE_IP", "OPENAI_API_KEY", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    return recorder


def invoke(*args: str, env: dict[str, str] | None = None, **more: Any) -> Result:
    return CliRunner().invoke(cli.main, args, env=env, **more)


def settings_of(recorder: Recorder, *args: str, env: dict[str, str] | None = None) -> Settings:
    invoke("--model", "m", "--prompt", "Hi", *args, env=env)
    assert recorder.settings is not None
    return recorder.settings


def test_an_answer_has_a_question_mark_for_what_a_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: object) -> int:
        AnswerPrinter().print_text("a 😀 é")
        return ExitCode.DONE

    monkeypatch.setattr(cli, "run", answer)
    result = CliRunner(charset="latin-1").invoke(cli.main, ["--model", "m", "--prompt", "Hi"])
    assert (result.exit_code, result.output) == (ExitCode.DONE, "a ? é")


def test_a_prompt_comes_from_the_environment(recorder: Recorder) -> None:
    parts = {"PERLLM_PROMPT_0": '{"messages": [{"role": "user", ', "PERLLM_PROMPT_1": '"content": "Hi"}], "seed": 7}'}
    invoke("--model", "m", "--prompt-from-env", env=parts)
    assert recorder.prompts == (Prompt(messages=({"role": "user", "content": "Hi"},), seed=7),)


def test_only_a_run_with_a_file_can_be_resumed(recorder: Recorder, tmp_path: Path) -> None:
    assert settings_of(recorder, "--resume", f"--result=file:{tmp_path}/answers.jsonl").is_resumed
    refused = invoke("--model", "m", "--prompt", "Hi", "--resume")
    assert (refused.exit_code, "--resume needs --result=file:PATH" in refused.output) == (ExitCode.USAGE, True)


def test_exit_code_is_that_of_the_run(recorder: Recorder) -> None:
    assert invoke("--model", "m", "--prompt", "Hi").exit_code == ExitCode.REJECTED
    assert recorder.prompts == (Prompt(messages=({"role": "user", "content": "Hi"},)),)


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "http://127.0.0.1:8000/v1"),
        ({"NODE_IP": "10.0.0.7"}, "http://10.0.0.7:8000/v1"),
        ({"NODE_IP": "fd00::7"}, "http://[fd00::7]:8000/v1"),
        ({"NODE_IP": "10.0.0.7", "PERLLM_URL": "https://llm.example/v1"}, "https://llm.example/v1"),
    ],
)
def test_server_is_that_of_the_node_unless_another_is_named(recorder: Recorder, env: dict[str, str], url: str) -> None:
    assert settings_of(recorder, env=env).url == url


def test_deadline_is_taken_from_the_annotation_as_the_operator_writes_it(recorder: Recorder) -> None:
    assert settings_of(recorder).deadline_unix_s is None
    assert settings_of(recorder, "--deadline", "1970-01-01T00:01:00.500000Z").deadline_unix_s == 60.5


def test_key_comes_from_the_environment_or_a_file(recorder: Recorder, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("from file\n")

    assert settings_of(recorder, env={"OPENAI_API_KEY": "from env\n"}).api_key == "from env"
    assert settings_of(recorder, "--api-key-file", str(tmp_path / "key")).api_key == "from file"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--prompt", "Hi"], "Missing option '--model'"),
        (["--model", "m"], "there is no prompt"),
        (["--model", "m", "--prompt", "Hi", "--url", "10.0.0.7:8000"], "is not the URL of a server"),
        (["--model", "m", "--prompt", "Hi", "--url", "http://user:pass@llm/v1"], "contain no password"),
        (["--model", "m", "--prompt", "Hi", "--url", "http://llm/v1?key=pass"], "contain no password"),
        (["--model", "m", "--prompt", "Hi", "--wait", "nan"], "is not a finite number"),
        (["--model", "m", "--prompt", "\udcff"], "not valid UTF-8"),
        (["--model", "m", "--prompt", "Hi", "--result", "file:/missing/x"], "mount a volume"),
        (["--model", "m", "--prompt", "Hi", "--result", "file:/tmp/"], "is a folder: name a file in it"),
        (["--model", "m", "--prompt", "Hi", "--deadline", "soon"], "is not an RFC 3339 time"),
        (["--model", "m", "--prompt", "Hi", "--result", "s3:x"], "write termination, configmap:NAME or file:PATH"),
        (["--model", "m", "--prompt", "Hi", "--api-key-file", "/missing"], "--api-key-file"),
    ],
)
def test_wrong_usage_is_explained(recorder: Recorder, args: list[str], message: str) -> None:
    result = invoke(*args)

    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join(result.output.split())
    assert ":pass@" not in result.output
    assert recorder.settings is None


def test_key_that_no_header_can_hold_is_refused_and_not_shown(recorder: Recorder) -> None:
    result = invoke("--model", "m", "--prompt", "Hi", env={"OPENAI_API_KEY": "sk-one\nsk-two"})

    assert (result.exit_code, recorder.settings) == (ExitCode.USAGE, None)
    assert "sk-" not in result.output


def test_help_lists_every_exit_code(recorder: Recorder) -> None:
    text = invoke("--help").output

    assert all(f"\n    {code.value} " in text for code in ExitCode)


def test_start_is_not_slowed_down_by_what_only_a_config_map_needs() -> None:
    command = "import sys, perllm.runner.cli; print([m for m in ('kubernetes', 'numpy', 'kopf') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout

    assert ast.literal_eval(output) == []
