"""Settlements for the tests of what uses them."""

from collections.abc import Callable

from perllm.energy.attribution import IdlePower
from perllm.energy.foreign import ForeignLoad
from perllm.energy.history import EnergyHistory
from perllm.energy.settlement import Settlement


def make_settlement(
    history: EnergyHistory, now_s: Callable[[], float], foreign: ForeignLoad | None = None
) -> Settlement:
    """Return a settlement over nodes with one GPU each."""
    return Settlement(
        history,
        IdlePower(),
        foreign or ForeignLoad(900.0),
        count_gpus=lambda _: 1.0,
        patience_s=30,
        retry_s=1,
        window_s=900,
        now=now_s,
    )
