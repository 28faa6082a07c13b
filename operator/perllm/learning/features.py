"""What the learned laws see of a task, and the published figures they start from.

With B tasks in a continuous batch an iteration takes a + b B seconds and gives each task one token; its energy is
nearly independent of B, so a task's share of it falls as 1/B. Prefill takes time and energy per prompt token. Hence

    seconds  x = [1, prompt/1000, output/100, (B - 1) output/100]
    joules   x = [prompt/1000, output/100, (output/100) / B]

Starting points, for models of 7 to 9 billion parameters on one accelerator
    output tokens take 7 to 100 ms at B = 1 (H100 vLLM, ML.ENERGY leaderboard v3: 7 ms; A10G bf16, LLM-Perf: 36 ms;
    Jetson AGX Orin fp16, arXiv 2511.01866: 100 ms) and about 2 % more for each further task in the batch;
    prompts take 0.05 to 0.9 ms per token (the same sources); decode energy 2 to 10 J per token at B = 1 and 0.05 to 0.3
    J that no batching removes; prefill 0.02 to 0.15 J per token.
The priors are geometric middles of these ranges, deliberately vague: one task of each GPU type corrects them.
"""

import numpy as np

from perllm.policy.problem import FloatArray

LATENCY_PRIOR = (1.0, 0.3, 4.0, 0.1)
"""Seconds: start-up, per 1,000 prompt tokens, per 100 output tokens, per 100 output tokens and further running task."""

ENERGY_PRIOR = (60.0, 15.0, 500.0)
"""Joules: per 1,000 prompt tokens, per 100 output tokens fixed, per 100 output tokens shared by the batch."""


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
