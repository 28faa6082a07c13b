"""The published figures that the laws of time and energy start from.

They hold for models of 7 to 9 billion parameters in 16 bit on one accelerator and are deliberately vague: the laws give
them a standard deviation of their own size, and one task corrects a whole GPU type. Energy is that of the GPU.

Sources
    H100      ML.ENERGY leaderboard v3, Llama-3.1-8B, vLLM: 6.67 + 0.076 B ms per iteration, 0.069 + 3.08/B J per token
    H200      those of the H100 times what one of each measured by the same program (docs/measured-gpu.md): 0.76 of what
              an iteration takes besides its tasks, in time and in energy; the same for each task and for reading
    A100      LLM-Inference-Bench (Argonne), Llama-3-8B, vLLM: 68 tokens/s and 3.34 J/token at B = 1, 1,812 and 0.174 at
              64; prefill 7,504 tokens/s, llama.cpp (GPU-Benchmarks-on-LLM-Inference)
    A10       LLM-Perf leaderboard, Llama-2-7B and 3-8B, bf16, B = 1: 28 tokens/s, 6.5 J/token; 256 tokens read in 94 ms
    T4        LLM-Perf leaderboard, Llama-7B, fp16, B = 1: 16.9 tokens/s, 4.14 J/token; 256 tokens read in 208 ms
    RTX 4090  GPU-Benchmarks-on-LLM-Inference, Llama-3-8B, F16: 54 tokens/s, reads 9,056 tokens/s; Fadel Argerich and
              Patino-Martinez, IEEE Access 2024, 7B: 7.6 J/token at B = 1, 2.7 at 20
    Orin      EdgeReasoning, arXiv 2511.01866, 8B, Jetson AGX Orin: 100 ms and 2.79 J per token, 0.85 ms per token read
    others    time: geometric middles of all but the H200; energy: the least of them, so that a type without figures is
              tried by tasks that have time to spare, and known after some of them
Where a source gives no slope over B, 2 % per further task is taken; where it gives no power while reading, that of
decoding.
"""

import re
from dataclasses import dataclass

START_UP_S = 1.0
"""From binding to the first token read: a container whose image is there starts in about a second."""

ROUND_TRIP_S = 0.1
"""From sending a request to the first token read on a model server that has nothing else to do."""

LOAD_S = 6.0
"""To load a model where it was not: 16 GB of weights at the 1 to 5 GB/s of a local disk."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Coefficients of the laws, in the order of the features.

    Attributes:
        latency: seconds: start-up of a pod, per 1,000 prompt tokens, per 100 output tokens, per 100 output tokens and
            further running task, round trip of a request.
        energy: joules: per 1,000 prompt tokens, per 100 output tokens fixed, per 100 output tokens shared by the batch.
        doubt: how far the figures may be off, as a standard deviation of the logarithm.
    """

    latency: tuple[float, float, float, float, float]
    energy: tuple[float, float, float]
    doubt: float = 0.3


GENERIC = Prior((START_UP_S, 0.3, 4.0, 0.1, ROUND_TRIP_S), (20.0, 6.9, 264.0), doubt=1.0)

_BY_GPU = {
    "h100": Prior((START_UP_S, 0.05, 0.67, 0.0076, ROUND_TRIP_S), (30.0, 6.9, 308.0)),
    "h200": Prior((START_UP_S, 0.05, 0.51, 0.0076, ROUND_TRIP_S), (30.0, 6.7, 233.0)),
    "a100": Prior((START_UP_S, 0.13, 1.43, 0.032, ROUND_TRIP_S), (40.0, 12.4, 320.0)),
    "a10": Prior((START_UP_S, 0.37, 3.6, 0.07, ROUND_TRIP_S), (70.0, 20.0, 630.0)),
    "t4": Prior((START_UP_S, 0.81, 5.9, 0.12, ROUND_TRIP_S), (60.0, 20.0, 394.0)),
    "4090": Prior((START_UP_S, 0.11, 1.84, 0.037, ROUND_TRIP_S), (40.0, 245.0, 515.0)),
    "orin": Prior((START_UP_S, 0.85, 10.0, 0.2, ROUND_TRIP_S), (20.0, 15.0, 264.0)),
}
# A slice by MIG, the variants of a GPU with less power, and profiles of virtual GPUs, such as A100-10C.
_SMALLER = re.compile(r"mig|laptop|nano|nx|\d+[abcq](me)?")


def find_prior(gpu_type: str) -> Prior:
    """Return the starting point of a GPU type, the value of its label; a generic one for types not listed.

    Only whole parts of the name count, since an RTX A1000 is no A100. What is less than the whole GPU is not listed.
    """
    parts = re.split(r"[^a-z0-9]+", gpu_type.lower())
    if any(_SMALLER.fullmatch(part) for part in parts):
        return GENERIC
    return next((prior for name, prior in _BY_GPU.items() if name in parts), GENERIC)
