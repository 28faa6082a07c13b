import errno
import fcntl
import resource
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from perllm.api.task_status import TaskPhase
from perllm.submission.answers import AnswerLine
from perllm.submission.formats import PlainFormat
from perllm.submission.output import AnswerFile, LinePrinter, OutputError, TextPrinter

TASKS = ("b-0", "b-1")
PLAIN = PlainFormat()


def line(index: int) -> AnswerLine:
    return AnswerLine(index=index, task=f"b-{index}", phase=TaskPhase.SUCCEEDED, text="ä\nb", latency_seconds=1.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def test_a_line_is_one_json_object_and_survives_a_crash(path: Path) -> None:
    with AnswerFile(path, TASKS, PLAIN) as file:
        file.write(line(0))
        content = path.read_bytes()

    assert content.count(b"\n") == 1
    assert orjson.loads(content) == {
        "index": 0,
        "task": "b-0",
        "phase": "Succeeded",
        "text": "ä\nb",
        "latencySeconds": 1.5,
    }


def test_lines_are_appended_to_those_of_earlier_calls(path: Path) -> None:
    with AnswerFile(path, TASKS, PLAIN) as file:
        file.write(line(1))
    with AnswerFile(path, TASKS, PLAIN) as file:
        file.write(line(0))
        assert file.lines == [line(1)]

    with AnswerFile(path, TASKS, PLAIN) as file:
        assert file.lines == [line(1), line(0)]


@pytest.mark.parametrize("length", [1, 8, 30])
def test_a_line_that_a_crash_cut_off_is_removed(path: Path, length: int) -> None:
    path.write_bytes(PLAIN.encode(line(0)) + PLAIN.encode(line(1))[:length])

    with AnswerFile(path, TASKS, PLAIN) as file:
        assert file.lines == [line(0)]
        file.write(line(1))

    assert path.read_bytes() == PLAIN.encode(line(0)) + PLAIN.encode(line(1))


@pytest.mark.parametrize("content", [b"precious", b'{"prompt": "x"}\n', b"\n"])
def test_a_file_of_something_else_is_not_touched(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(OutputError, match="line 1, is not an answer"):
        AnswerFile(path, TASKS, PLAIN)

    assert path.read_bytes() == content


def test_answers_to_other_prompts_are_an_error_that_says_what_to_do(path: Path) -> None:
    path.write_bytes(PLAIN.encode(line(0)))

    with pytest.raises(OutputError, match="line 1, belongs to other prompts or options: give another --output"):
        AnswerFile(path, ("c-0",), PLAIN)


def test_only_one_process_writes(path: Path) -> None:
    with AnswerFile(path, TASKS, PLAIN), pytest.raises(OutputError, match="another process writes to this file"):
        AnswerFile(path, TASKS, PLAIN)


def test_printed_are_the_text_of_a_single_answer_and_the_lines_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    TextPrinter().write(line(0))
    LinePrinter(PLAIN).write(line(1))

    assert capsys.readouterr().out == "ä\nb\n" + PLAIN.encode(line(1)).decode()


def test_why_a_single_answer_is_missing_is_said_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    TextPrinter().write(AnswerLine(index=0, task="b-0", phase=TaskPhase.REJECTED, problem="too late"))

    assert capsys.readouterr() == ("", "no answer: too late\n")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files that cannot grow beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_explained(path: Path) -> None:
    words = r"answers.jsonl cannot be written \(.*\): make room, and repeat the same command"
    with pytest.raises(OutputError, match=words), AnswerFile(path, TASKS, PLAIN) as file:
        file.write(line(0))


def test_a_file_system_without_locks_is_no_obstacle(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with AnswerFile(path, TASKS, PLAIN) as file:
        file.write(line(0))
    assert path.read_bytes() == PLAIN.encode(line(0))
    assert "make sure that no other process writes to it" in capsys.readouterr().err
