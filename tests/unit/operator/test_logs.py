import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from perllm.api.task_status import TaskStatus
from perllm.cluster.events import EventRecorder, Subject
from perllm.config import LogSettings
from perllm.controller.announcer import Announcer
from perllm.controller.lifecycle import advance
from perllm.logs import configure_logging
from perllm.metrics import OperatorMetrics
from unit.controller.samples import failed, make_task, succeeded
from unit.placement.records import make_decision


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Recorder(EventRecorder):
    """Keeps the events instead of posting them."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, bool]] = []

    def record(self, subject: Subject, reason: str, note: str, *, warning: bool = False) -> None:
        self.recorded.append((reason, note, warning))


class Announced:
    def __init__(self) -> None:
        events = Recorder()
        self.recorded = events.recorded
        self.registry = CollectorRegistry()
        self.announcer = Announcer(events, OperatorMetrics(self.registry))


def test_a_decision_is_one_json_line_with_all_that_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="json"))
    announced = Announced()
    announced.announcer.placed(make_task(), make_decision())
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert {key: fields[key] for key in ("event", "level", "logger", "task", "node", "tier", "gpu", "policy")} == {
        "event": "decision",
        "level": "INFO",
        "logger": "perllm.decisions",
        "task": "lab/t",
        "node": "n",
        "tier": "edge",
        "gpu": "T4",
        "policy": "cs-ucb",
    }
    assert (fields["predicted_latency_s"], fields["time_left_s"], fields["output_tokens"]) == (4.0, 8.0, 100.0)
    assert (fields["latency_low_s"], fields["latency_high_s"]) == (3.0, 5.0)
    assert (fields["hit_chance"], fields["harm"]) == (0.9, 0.02)
    assert (fields["predicted_energy_j"], fields["meets_deadline"], fields["explored"]) == (500.0, True, False)
    assert (fields["candidates"], fields["rejected"]) == (3, {"compute": 2, "deadline": 1})
    assert fields["reason"] == "highest index of 3 candidates"
    assert "time" in fields


def test_a_decision_is_one_line_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    announced = Announced()
    announced.announcer.placed(make_task(), make_decision(meets_deadline=False))
    (line,) = capsys.readouterr().err.splitlines()
    assert "lab/t -> n (edge, T4): 4.00 s predicted (3.00 to 5.00 s), MISSES the 8.00 s left at 90.0%, 500 J" in line
    assert "3 candidates, 3 refused" in line
    ((reason, note, warning),) = announced.recorded
    assert (reason, warning) == ("Placed", False)
    assert note.endswith("Refused nodes: 2 compute, 1 deadline.")


def test_an_end_is_said_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    announced, task = Announced(), make_task()
    for pod in (succeeded(), succeeded(finished_s=1070.0), failed()):
        announced.announcer.ended(task, advance(task, TaskStatus(), [pod], 1080).status)
    in_time, late, broken = capsys.readouterr().err.splitlines()
    assert "lab/t succeeded: complete after 11.00 s of 60 s" in in_time
    assert "lab/t succeeded: complete after 71.00 s of 60 s" in late
    assert "lab/t failed: pod t-1 failed with exit code 3" in broken
    assert [(reason, warning) for reason, _, warning in announced.recorded] == [
        ("DeadlineMissed", True),
        ("Failed", True),
    ]
    count = announced.registry.get_sample_value
    assert count("perllm_tasks_finished_total", {"phase": "Succeeded"}) == 2
    assert count("perllm_deadlines_total", {"tier": "edge", "met": "false"}) == 2


def test_less_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="WARNING"))
    Announced().announcer.placed(make_task(), make_decision())
    assert capsys.readouterr().err == ""
