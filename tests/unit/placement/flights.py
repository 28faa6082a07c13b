"""Flights for the tests of the ledger: tasks of 1,000 prompt tokens that a node reads in 2 s."""

import dataclasses
from typing import Any

from perllm.placement.ledger import Flight

USUAL = Flight(
    task_id="t",
    model="m",
    row=0,
    gpus=1.0,
    demand_bps=1e6,
    input_bits=0.0,
    prompt_tokens=1000.0,
    reading_s=2.0,
    work_s=1.0,
    due_s=100.0,
    writes_from_s=2.0,
    solo_token_s=0.1,
    contention_s=0.01,
    length_centre=5.0,
    length_spread=0.5,
    length_kind=0,
)


def make_flight(task_id: str = "t", row: int = 0, **fields: Any) -> Flight:
    return dataclasses.replace(USUAL, task_id=task_id, row=row, **fields)
