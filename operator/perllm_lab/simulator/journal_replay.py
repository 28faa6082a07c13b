"""Replays the journal of an operator: the same inputs, at the same times, to the same scheduler.

Every decision has to come out the same: task, verdict, node and score. A difference means that decisions depend on
something that was not recorded, or that the code has changed since.
"""

from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perllm.scheduling.assembly import SchedulerSettings, build_scheduler
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs, JournalError, RecordedInput, call_input, read_journal

SCORE_TOLERANCE = 1e-9
"""Relative and absolute; scores are sums of products, whose last digits depend on the machine."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An input whose result differs from the recorded one."""

    line: int
    name: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        return f"line {self.line}, {self.name}: {self.recorded} was recorded, {self.replayed} replayed"


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay.

    Attributes:
        inputs: number of inputs that were replayed.
        decisions: number of decisions among their results.
        started: number of tasks that were started.
        differences: the inputs whose results differ, in their order.
    """

    inputs: int
    decisions: int
    started: int
    differences: list[Difference]


class _Moment:
    now_s = 0.0
    unix_s = 0.0


def replay_journal(path: Path) -> ReplayResult:
    """Replay a journal and compare every result with the recorded one.

    Raises:
        JournalError: the file is not a journal, or cannot be read.
    """
    moment, result = _Moment(), ReplayResult(0, 0, 0, [])
    inputs = Inputs(HeldClock(lambda: moment.now_s, lambda: moment.unix_s))
    try:
        with path.open("rb") as file:
            settings, recorded = read_journal(file)
            scheduler, _ = build_scheduler(SchedulerSettings.model_validate(settings), inputs)
            for one in recorded:
                moment.now_s, moment.unix_s = one.now_s, one.unix_s
                _compare(one, call_input(scheduler, one), result)
    except (OSError, ValidationError) as error:
        raise JournalError(f"{path}: {error}") from error
    return result


def _compare(one: RecordedInput, replayed: Any, result: ReplayResult) -> None:
    result.inputs += 1
    if not _is_same(one.result, replayed):
        result.differences.append(Difference(one.line, one.name, one.result, replayed))
    if one.name == "due":
        result.decisions += len(one.result)
        result.started += sum(action["verdict"] == "start" for action in one.result)
    elif isinstance(one.result, dict):
        result.decisions += 1


def _is_same(recorded: Any, replayed: Any) -> bool:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        return recorded.keys() == replayed.keys() and all(_is_same(recorded[key], replayed[key]) for key in recorded)
    if isinstance(recorded, list) and isinstance(replayed, list):
        return len(recorded) == len(replayed) and all(map(_is_same, recorded, replayed))
    if isinstance(recorded, float) and isinstance(replayed, int | float):
        return isclose(recorded, replayed, rel_tol=SCORE_TOLERANCE, abs_tol=SCORE_TOLERANCE)
    return bool(recorded == replayed)
