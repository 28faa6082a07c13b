"""Outcomes for the tests of learning."""

import dataclasses
from typing import Any, TypeVar

from perllm.learning.outcome import Ended, ObservedRun, Outcome

T = TypeVar("T", Outcome, Ended)
RUN_FIELDS = {one.name for one in dataclasses.fields(ObservedRun)}

RUN = ObservedRun(
    task_id="00000000-0001",
    model="m",
    node="a",
    prompt_tokens=1000,
    hint_tokens=None,
    run_s=4.0,
    occupancy=2.0,
    others_tokens=0.0,
    cold=0.0,
)
USUAL = Outcome(
    run=RUN,
    output_tokens=100,
    latency_s=5.0,
    deadline_s=10.0,
    inference_energy_j=300.0,
    transmission_energy_j=10.0,
    predicted_energy_j=500.0,
    run_error=None,
    energy_error=None,
    resource_slack=0.5,
    finished_s=1000.0,
)
USUAL_ENDED = Ended(
    run=dataclasses.replace(RUN, task_id="task-ended", run_s=15.0),
    foreseen_fixed_s=1.0,
    foreseen_token_s=0.01,
    ended_s=2000.0,
)


def make_outcome(number: int = 1, **fields: Any) -> Outcome:
    """Return an outcome with an id of its own, one second after the one before; fields are its own or its run's."""
    return _replace(USUAL, {"task_id": f"{number:08x}-0001-0000", "finished_s": 1000.0 + number, **fields})


def make_ended(**fields: Any) -> Ended:
    """Return a run that was ended; fields are its own or its run's."""
    return _replace(USUAL_ENDED, fields)


def _replace(one: T, fields: dict[str, Any]) -> T:
    of_run = {name: fields.pop(name) for name in RUN_FIELDS & fields.keys()}
    return dataclasses.replace(one, run=dataclasses.replace(one.run, **of_run), **fields)
