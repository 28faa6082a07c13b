"""How long nodes of a GPU type take to load a model, learned from runs that waited for it."""

from perllm.learning.model_laws import ModelLaws
from perllm.learning.outcome import MAX_RUN_S, ObservedRun
from perllm.learning.priors import LOAD_S
from perllm.policy.problem import FloatArray

LOAD_DOUBT = 0.5
"""Standard deviation of the time to load a model, as a share of it."""

LOAD_STEP = 0.3
"""Weight of the newest run on a node that had to load its model, in the mean loading time of its type."""

MEASURED_LOAD_STEP = 0.5
"""The same of a loading that was measured by itself: it varies with what else the node reads from its disk."""


MAX_GROWTH = 10.0
"""A single run makes the time to load a model at most this many times as long: what it waited for may be of its own
making, and where a node is thought to load for hours no task is sent that could correct that."""


def learn_cold_run(known: ModelLaws, row: int, run: ObservedRun, features: FloatArray) -> None:
    """Learn from a run that may have waited for its model.

    One that took less than expected is an observation of the law as well: neither part of it can have taken longer
    than both. Of one that took more it is not known which part did, and the time to load varies more.
    """
    loading_s = float(known.load_s[row]) * run.cold
    warm_s = max(run.run_s - loading_s, 0.0)
    if warm_s < known.latency.coefficients[row] @ features:
        known.latency.learn_roughly(row, features, warm_s, LOAD_DOUBT * loading_s)
    _learn_load(known, row, run, float(known.latency.coefficients[row] @ features))


def learn_measured_load(known: ModelLaws, row: int, measured_s: float) -> None:
    """Move the loading time of a GPU type towards one that was measured by itself."""
    _move_load(known, row, MEASURED_LOAD_STEP * (measured_s - float(known.load_s[row])))


def _learn_load(known: ModelLaws, row: int, run: ObservedRun, warm_s: float) -> None:
    """Move the loading time of a GPU type towards what a run took beyond one on a node that has the model.

    That is `cold` times the loading time and everything else that was unusual: a step of least squares, in which a run
    that met the end of the loading says hardly anything.
    """
    beyond_s = max(run.run_s - warm_s, 0.0) - run.cold * float(known.load_s[row])
    _move_load(known, row, LOAD_STEP * run.cold * beyond_s)


def _move_load(known: ModelLaws, row: int, by_s: float) -> None:
    known_s = float(known.load_s[row])
    most_s = min(MAX_GROWTH * max(known_s, LOAD_S), MAX_RUN_S)
    known.load_s[known.alike(row)] = min(max(known_s + by_s, 0.0), most_s)
