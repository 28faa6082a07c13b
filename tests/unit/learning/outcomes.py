"""Outcomes for the tests of learning."""

import dataclasses
from typing import Any

from perllm.learning.outcome import Outcome

USUAL = Outcome(
    task_id="00000000-0001",
    model="m",
    node="a",
    prompt_tokens=1000,
    output_tokens=100,
    run_s=4.0,
    latency_s=5.0,
    deadline_s=10.0,
    inference_energy_j=300.0,
    transmission_energy_j=10.0,
    predicted_energy_j=500.0,
    occupancy=2.0,
    others_tokens=0.0,
    cold=0.0,
    hint_tokens=None,
    run_error=None,
    energy_error=None,
    resource_slack=0.5,
    finished_s=1000.0,
)


def make_outcome(number: int = 1, **fields: Any) -> Outcome:
    """Return an outcome with an id of its own, one second after the one before."""
    values = {"task_id": f"{number:08x}-0001-0000", "finished_s": 1000.0 + number, **fields}
    return dataclasses.replace(USUAL, **values)
