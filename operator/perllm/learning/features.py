"""What the learned laws see of a task.

With B tasks in a continuous batch an iteration takes a + b B seconds and gives each task one token; its energy is
nearly independent of B, so a task's share of it falls as 1/B. Prefill takes time and energy per prompt token, and while
another task's prompt is processed no task decodes: so the prompts of others that are read while a task runs cost it as
much as its own. Hence

    seconds  x = [pods, (prompt + others' prompts)/1000, output/100, (B - 1) output/100, requests]
    joules   x = [prompt/1000, output/100, (output/100) / B]

B and the others' prompts are those of the task's own model, counted per GPU of the node: each model has a server, and
so a batch, of its own. Servers that have work at the same time divide the time of their GPU equally, so what is read
and written takes 1 / pace times as long, the pace being 1 / (number of models that have work). The features of time are
divided by it, so that what is learned is the law of a model that has its GPU to itself.

A task starts one pod or makes one request: what takes time in either case, with any prompt, is the start of a
container, or the round trip to the model server.
"""

import numpy as np

from perllm.policy.problem import FloatArray

PROMPT_UNIT = 1000.0
OUTPUT_UNIT = 100.0

LEAST_LATENCY_SHARES = (0.01, 0.1, 0.02, 0.02, 0.01)
"""How far below its prior each coefficient of time may fall. On a busy node it is not known exactly which of the
others' prompts were read during a run; an unconstrained regression would attribute their time to other terms, and
reading would seem to cost nothing."""

MAX_READING = 0.8
"""Nodes read prompts for at most this share of the time: there is always something to decode in between."""


def latency_features(
    prompt_tokens: float,
    others_tokens: float,
    output_tokens: float,
    occupancy: float,
    *,
    pace: float = 1.0,
    is_served: bool = False,
) -> FloatArray:
    """Return the features of one task's time, shape (5,), for a mean occupancy B >= 1 and a mean pace."""
    hundreds, requests = output_tokens / OUTPUT_UNIT / pace, float(is_served)
    read = (prompt_tokens + others_tokens) / PROMPT_UNIT / pace
    return np.array([1.0 - requests, read, hundreds, (occupancy - 1.0) * hundreds, requests])


def energy_features(
    prompt_tokens: float | FloatArray, output_tokens: float | FloatArray, occupancy: float
) -> FloatArray:
    """Return the features of a task's energy, shape (3,), or of n tasks', shape (3, n), for a mean occupancy B >= 1."""
    hundreds = output_tokens / OUTPUT_UNIT
    return np.array([prompt_tokens / PROMPT_UNIT, hundreds, hundreds / occupancy])
