"""Stored profiles for the tests of learning: real ones, those of version 2, and damaged ones."""

import base64
import copy
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.nodes.profile_state import export_status
from perllm.policy.problem import Policy
from unit.learning.outcomes import make_outcome

NODE = Node("a", "uid-a", Tier.EDGE, "T4", 4.0, frozenset(), True)
NOW_S = 2000.0
MODELS = ("m", "org/other")
_PEOPLE = ("count", "lastOutcome", "model")

Path = tuple[str | int, ...]


def teach(policy: Policy, outcomes: int = 40, models: tuple[str, ...] = MODELS) -> Learner:
    """Return a learner that has seen the tasks of some models on one node, with hints and without."""
    learner, rng = Learner(policy), np.random.default_rng(0)
    learner.register(NODE.name, NODE.gpu_type)
    for number in range(outcomes):
        learner.learn(
            make_outcome(
                number,
                model=models[number % len(models)],
                run_s=float(rng.lognormal(1.4, 0.2)),
                prompt_tokens=int(rng.lognormal(6, 1)) + 1,
                output_tokens=int(rng.lognormal(4.6, 0.8)) + 1,
                hint_tokens=[None, 100.0][number // 2 % 2],
                inference_energy_j=float(rng.lognormal(5.5, 0.3)),
                run_error=float(rng.normal(0, 0.2)),
            )
        )
    return learner


def store(learner: Learner, policy: Policy) -> dict[str, Any]:
    """Return the status of the node's profile as the API server would hold it."""
    status = export_status(learner, NODE, policy.name, NOW_S).to_object()
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(status))
    return loaded


def open_data(status: dict[str, Any]) -> dict[str, Any]:
    """Return the machine's part of a status."""
    state: dict[str, Any] = orjson.loads(zlib.decompress(base64.b64decode(status["state"]["data"])))
    return state


def close_data(state: object) -> str:
    return base64.b64encode(zlib.compress(orjson.dumps(state))).decode()


def to_old(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status as version 2 wrote it."""
    state = open_data(status)
    old = copy.deepcopy(status)
    times = {one["model"]: one["lastOutcomeTime"] for one in old["models"]}
    old["models"] = [
        {
            "model": one["model"],
            "count": one["count"],
            "lastOutcomeTime": times[one["model"]],
            "state": {key: value for key, value in one.items() if key not in _PEOPLE},
        }
        for one in state["models"]
    ]
    extra = {"recentSince": state["recentSince"], "recentTimes": state["recentTimes"]}
    return {**old, "schemaVersion": 2, "recent": state["recent"], "state": extra}


def walk(tree: object, path: Path = ()) -> Iterator[Path]:
    """Yield the path of everything in a tree."""
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for key, inner in items:
        yield (*path, key)
        yield from walk(inner, (*path, key))


def change(tree: Any, path: Path, value: object) -> Any:
    """Return a copy of a tree with one thing in it changed; taken away where the value is `...`."""
    changed = copy.deepcopy(tree)
    at = changed
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return changed
