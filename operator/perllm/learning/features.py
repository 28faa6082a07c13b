"""What the learned laws see of a task.

With B tasks in a continuous batch an iteration takes a + b B seconds and gives each task one token; its energy is
nearly independent of B, so a task's share of it falls as 1/B. Prefill takes time and energy per prompt token. Hence

    seconds  x = [1, prompt/1000, output/100, (B - 1) output/100]
    joules   x = [prompt/1000, output/100, (output/100) / B]
"""

import numpy as np

from perllm.policy.problem import FloatArray


def latency_features(prompt_tokens: float, output_tokens: float, occupancy: FloatArray) -> FloatArray:
    """Return features of the latency law, shape (n, 4), for `occupancy` B >= 1, shape (n,)."""
    hundreds = output_tokens / 100
    ones = np.ones_like(occupancy)
    return np.stack([ones, ones * prompt_tokens / 1000, ones * hundreds, (occupancy - 1) * hundreds], axis=1)


def energy_features(prompt_tokens: float, output_tokens: float, occupancy: FloatArray) -> FloatArray:
    """Return features of the energy law, shape (n, 3), for `occupancy` B >= 1, shape (n,)."""
    hundreds = output_tokens / 100
    ones = np.ones_like(occupancy)
    return np.stack([ones * prompt_tokens / 1000, ones * hundreds, hundreds / occupancy], axis=1)
