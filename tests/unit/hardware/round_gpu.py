"""A GPU of round figures for the tests of simulated nodes."""

import dataclasses

from perllm_lab.hardware.catalogue import JETSON_ORIN

# Iteration 0.1 s + 0.1 s a task, 1 J a token + 1 J an iteration, prefill 10 ms and 1 J a token, idle 10 W.
ROUND_GPU = dataclasses.replace(
    JETSON_ORIN,
    iteration_base_s=0.1,
    iteration_per_task_s=0.1,
    slots=2,
    token_energy_j=1.0,
    iteration_energy_j=1.0,
    prefill_per_token_s=0.01,
    prefill_power_w=100.0,
    idle_power_w=10.0,
    model_load_s=5.0,
    pod_start_s=0.0,
    context_token_s=0.0,
    prefill_least_s=0.0,
)
