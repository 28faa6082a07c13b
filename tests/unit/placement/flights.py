"""Flights for the tests of the ledger: tasks of 1,000 prompt tokens that a node reads in 2 s, placed at 0 s."""

from typing import Any

from perllm.placement.flight import Flight
from unit.placement.parts import replace_fields
from unit.placement.records import make_decision

DECISION = make_decision(
    time_left_s=100.0,
    length_centre=5.0,
    input_bits=0.0,
    reading_s=2.0,
    work_s=1.0,
    fixed_s=2.0,
    solo_token_s=0.1,
    contention_s=0.01,
)
USUAL = Flight(
    task_id="t", row=0, placed_s=0.0, inference=DECISION.inference, forecast=DECISION.forecast, length_kind=0
)


def make_flight(task_id: str = "t", row: int = 0, **fields: Any) -> Flight:
    """The usual flight with other values of some fields, whichever part they belong to."""
    return replace_fields(USUAL, task_id=task_id, row=row, **fields)
