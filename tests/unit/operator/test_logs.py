import dataclasses
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from perllm.api.task_status import EnergyQuality, TaskStatus
from perllm.cluster.events import EventRecorder, Subject
from perllm.cluster.pod import Pod
from perllm.controller.announcer import Announcer
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.lifecycle import advance
from perllm.controller.task import Task
from perllm.energy.bill import BillMetrics
from perllm.logs import MAX_MESSAGE, MAX_TRACEBACK, LogSettings, configure_logging
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
        self.announcer = Announcer(
            events, OperatorMetrics(self.registry), EndMetrics(self.registry), BillMetrics(self.registry)
        )


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
    assert (fields["waited_s"], fields["time_left_s"], fields["output_tokens"]) == (2.0, 8.0, 100.0)
    assert (fields["predicted_latency_s"], fields["deadline_s"]) == (6.0, 60.0)
    assert (fields["latency_low_s"], fields["latency_high_s"]) == (5.0, 7.0)
    assert (fields["hit_chance"], fields["harm"]) == (0.9, 0.02)
    assert (fields["predicted_energy_j"], fields["meets_deadline"], fields["explored"]) == (500.0, True, False)
    assert (fields["candidates"], fields["rejected"]) == (3, {"compute": 2, "late": 1})
    assert fields["reason"] == "highest index of 3 candidates"
    assert "time" in fields


def test_a_decision_is_one_line_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    announced = Announced()
    announced.announcer.placed(make_task(), make_decision(meets_deadline=False))
    (line,) = capsys.readouterr().err.splitlines()
    words = (
        "-> n (edge, T4) by cs-ucb: 6.00 s predicted (5.00 to 7.00 s) of the 60 s since its creation, "
        "TOO LATE with a chance of 90.0%; 500 J; highest index of 3 candidates; excluded nodes: 2 compute, 1 late"
    )
    assert line.endswith(f"lab/t {words}")
    assert announced.recorded == [("Placed", words, False)]


def test_log_event_and_status_count_a_prediction_from_the_same_moment(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="json"))
    announced, task, decision = Announced(), make_task(), make_decision(decided_s=1007.5, latency_s=4.0)
    announced.announcer.placed(task, decision)
    predicted_s = decision.to_status(task.received_s).predicted_latency
    assert json.loads(capsys.readouterr().err)["predicted_latency_s"] == predicted_s == 11.5
    assert announced.recorded[0][1].startswith("-> n (edge, T4) by cs-ucb: 11.50 s predicted")


def end(task: Task, pod: Pod, energy_j: float | None = None) -> TaskStatus:
    """Return the status of a task that ended, settled with this energy if it succeeded."""
    status = advance(task, TaskStatus(), [pod], 1080).status
    if status.observed is None:
        return status
    quality = EnergyQuality.MISSING if energy_j is None else EnergyQuality.MEASURED
    observed = status.observed.model_copy(update={"energy_joules": energy_j, "energy_quality": quality})
    return status.model_copy(update={"observed": observed})


ENDS = {
    "in time": (
        succeeded(),
        520.0,
        "INFO",
        "lab/t succeeded in time on n (edge, T4), placed by cs-ucb, after 10.00 s of the 60 s since its creation, "
        "6.00 s predicted; 520 J (measured), 500 J predicted; 1 attempt",
    ),
    "late": (
        succeeded(attempt=2, finished_s=1070.0),
        None,
        "WARNING",
        "lab/t succeeded but MISSED its deadline on n (edge, T4), placed by cs-ucb, after 70.00 s of the 60 s since "
        "its creation, 6.00 s predicted; energy not measured, 500 J predicted; 2 attempts",
    ),
    "failed": (
        failed(),
        None,
        "WARNING",
        "lab/t failed on n (edge, T4), placed by cs-ucb, after 80.00 s of the 60 s since its creation, 6.00 s "
        "predicted; energy not measured, 500 J predicted; 1 attempt: pod t-1 failed with exit code 3: Error",
    ),
}


@pytest.mark.parametrize(("pod", "energy_j", "level", "words"), ENDS.values(), ids=ENDS.keys())
def test_an_end_is_one_line_for_people(
    capsys: pytest.CaptureFixture[str], pod: Pod, energy_j: float | None, level: str, words: str
) -> None:
    configure_logging(LogSettings(format="text"))
    task = make_task()
    Announced().announcer.settled(task, end(task, pod, energy_j), now_s=1080.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f" {level:7} perllm.decisions: {words}")


def test_an_end_is_one_json_line_with_prediction_and_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="json"))
    task = make_task()
    Announced().announcer.settled(task, end(task, succeeded(), 520.0), now_s=1080.0)
    fields = json.loads(capsys.readouterr().err)
    assert fields.pop("time")
    assert fields.pop("message").startswith("lab/t succeeded in time")
    assert fields == {
        "level": "INFO",
        "logger": "perllm.decisions",
        "event": "ended",
        "task": "lab/t",
        "uid": "uid-t",
        "model": "m",
        "outcome": "Succeeded",
        "reason": "Succeeded",
        "detail": None,
        "policy": "cs-ucb",
        "node": "n",
        "tier": "edge",
        "gpu": "T4",
        "attempts": 1,
        "deadline_s": 60.0,
        "deadline_met": True,
        "elapsed_s": 10.0,
        "predicted_latency_s": 6.0,
        "observed_latency_s": 10.0,
        "hit_chance": 0.9,
        "predicted_energy_j": 500.0,
        "observed_energy_j": 520.0,
        "energy_quality": "measured",
    }


def test_the_end_of_a_task_without_a_valid_spec_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    task = dataclasses.replace(make_task(), spec=None, problem="spec.model: required")
    Announced().announcer.settled(task, advance(task, TaskStatus(), [], 1000.0).status, now_s=1000.0)
    line = capsys.readouterr().err
    assert "lab/t rejected after 0.00 s since its creation; 0 attempts: spec.model: required" in line


def test_ends_are_counted_and_those_that_are_no_success_are_events() -> None:
    announced, task = Announced(), make_task()
    for pod in (succeeded(), succeeded(finished_s=1070.0), failed()):
        announced.announcer.ended(task, advance(task, TaskStatus(), [pod], 1080).status)
    assert [(reason, warning) for reason, _, warning in announced.recorded] == [("Failed", True)]
    count = announced.registry.get_sample_value
    assert count("perllm_tasks_finished_total", {"phase": "Succeeded"}) == 2
    assert count("perllm_deadlines_total", {"tier": "edge", "met": "false"}) == 2


HOSTILE = "\x1b[2Jgone\n2026-01-01 00:00:00,000 INFO    perllm: all is well\x9b\u202e\ud800"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_is_one_line_and_obeyed_by_no_terminal(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(LogSettings(format=form))
    logging.getLogger("x").warning("said %s", HOSTILE, extra={"words": {HOSTILE: [HOSTILE, float("nan"), 2**70]}})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    if form == "json":
        clean = "gone 2026-01-01 00:00:00,000 INFO perllm: all is well"
        assert json.loads(line)["message"] == f"said {clean}"
        assert json.loads(line)["words"] == {clean: [clean, "nan", str(2**70)]}


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_keeps_its_lines_and_none_passes_for_a_record(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    configure_logging(LogSettings(format=form))
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("x").exception("went wrong")
    first, *rest = capsys.readouterr().err.splitlines()
    if form == "json":
        rest = json.loads(first)["exc_info"].splitlines()
    assert len(rest) > 3
    assert all(line.isprintable() for line in rest)
    assert form == "json" or all(line.startswith("  ") for line in rest)


def test_what_is_too_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings())
    try:
        raise ValueError("x" * 10**6 + "the end")
    except ValueError:
        logging.getLogger("x").exception("y" * 10**6)
    message, *traceback = capsys.readouterr().err.splitlines()
    assert len(message) < MAX_MESSAGE + 100
    assert "Traceback" in traceback[0]
    assert traceback[-1].endswith("the end")
    assert sum(map(len, traceback)) < MAX_TRACEBACK + 1000


def test_less_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="WARNING"))
    Announced().announcer.placed(make_task(), make_decision())
    assert capsys.readouterr().err == ""


def test_tries_of_kopf_are_left_to_those_who_tell_of_outages_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings())
    kopf = logging.getLogger("kopf._core.reactor.observation")
    kopf.error("Request attempt #%d failed; will retry: %s", 3, "GET https://api/apis")
    kopf.warning("Unresolved resources cannot be served")
    (line,) = capsys.readouterr().err.splitlines()
    assert "Unresolved resources" in line
