"""The GPU types of the lab, each figure with its public source.

Joules are of the whole node as far as the source allows; where it gives GPU energy only, the figures here were
scaled towards the node (Google, arXiv 2508.15734: accelerators are 58 % of a serving system's energy).
`a + b B` below is an iteration in ms at batch B, `e0 + e1 / B` joules per decoded token.
"""

from collections.abc import Mapping
from types import MappingProxyType

from perllm_lab.hardware.gpu import GpuType

POD_START_S = 1.3
"""Creation to Running of a pod with a local image, kubelet 1.37 and containerd 1.6, our own measurement on 2 cores."""

FP16_8B_GB = 16.0
FP16_33B_GB = 66.0
INT4_7B_GB = 4.0

CPU_SERVER = GpuType(
    key="xeon-4214r-int4-7b",
    product="Intel-Xeon-Silver-4214R",
    model_name="Intel Xeon Silver 4214R",
    iteration_base_s=0.065,
    iteration_per_task_s=0.018,
    slots=8,
    token_energy_j=2.16,
    iteration_energy_j=7.8,
    prefill_per_token_s=0.020,
    prefill_power_w=120.0,
    idle_power_w=50.0,
    model_load_s=INT4_7B_GB / 0.5,
    pod_start_s=POD_START_S,
    cpus=24,
    memory_gib=128,
    source="Inferred: memory-bandwidth roofline (12 cores, 100 W, 115 GB/s) scaled from the Xeon measurements of CEUR "
    "Vol-4164 paper 11 (llama.cpp Q4) and HF optimum LLM-Perf (C7i). No measurement of this CPU is published.",
)

JETSON_ORIN = GpuType(
    key="jetson-agx-orin-8b",
    product="NVIDIA-Jetson-AGX-Orin",
    model_name="NVIDIA Jetson AGX Orin 64GB",
    iteration_base_s=0.098,
    iteration_per_task_s=0.003,
    slots=6,
    token_energy_j=0.15,
    iteration_energy_j=3.1,
    prefill_per_token_s=0.00085,
    prefill_power_w=35.0,
    idle_power_w=10.0,
    model_load_s=FP16_8B_GB / 1.0,
    pod_start_s=POD_START_S,
    cpus=12,
    memory_gib=64,
    source="EdgeReasoning (arXiv 2511.01866), vLLM fp16 8B at batch 1: 100-103 ms per token, 2.79 J per token, prefill "
    "512 tokens in 0.43 s; idle from jetson-llm-maxperf. Slope with the batch and its energy split inferred.",
)

T4 = GpuType(
    key="t4-8b",
    product="Tesla-T4",
    model_name="Tesla T4",
    iteration_base_s=0.056,
    iteration_per_task_s=0.003,
    slots=4,
    token_energy_j=0.33,
    iteration_energy_j=6.2,
    prefill_per_token_s=0.0008,
    prefill_power_w=110.0,
    idle_power_w=40.0,
    model_load_s=FP16_8B_GB / 1.0,
    pod_start_s=POD_START_S,
    cpus=16,
    memory_gib=64,
    source="HF optimum LLM-Perf, Llama-7B fp16, batch 1: 59 ms per token, 208 ms for 256 prompt tokens, 4.1 J (GPU) to "
    "11 J (node) per token. Slope with the batch and its energy split inferred.",
)

A10 = GpuType(
    key="a10-8b",
    product="NVIDIA-A10",
    model_name="NVIDIA A10",
    iteration_base_s=0.034,
    iteration_per_task_s=0.0007,
    slots=16,
    token_energy_j=0.17,
    iteration_energy_j=7.6,
    prefill_per_token_s=0.00035,
    prefill_power_w=250.0,
    idle_power_w=60.0,
    model_load_s=FP16_8B_GB / 2.0,
    pod_start_s=POD_START_S,
    cpus=32,
    memory_gib=128,
    source="HF optimum LLM-Perf, A10G, Llama-2-7B / Llama-3-8B bf16, batch 1: 28 tokens/s, 8.8 J (node) per token, "
    "94 ms for 256 prompt tokens. Slope with the batch inferred.",
)

RTX_4090 = GpuType(
    key="rtx-4090-8b",
    product="NVIDIA-GeForce-RTX-4090",
    model_name="NVIDIA GeForce RTX 4090",
    iteration_base_s=0.0182,
    iteration_per_task_s=0.00035,
    slots=24,
    token_energy_j=0.16,
    iteration_energy_j=7.2,
    prefill_per_token_s=0.00011,
    prefill_power_w=480.0,
    idle_power_w=80.0,
    model_load_s=FP16_8B_GB / 3.0,
    pod_start_s=POD_START_S,
    cpus=32,
    memory_gib=128,
    source="XiongjieDai/GPU-Benchmarks, LLaMA-3-8B F16: 54.3 tokens/s, prefill 9056 tokens/s; node energy at batch 1 "
    "from Fadel Argerich and Patino-Martinez, IEEE Access 2024 (7B FP16: 5.7-8.5 J per token). Batch split inferred.",
)

A100_8B = GpuType(
    key="a100-8b",
    product="NVIDIA-A100-SXM4-80GB",
    model_name="NVIDIA A100-SXM4-80GB",
    iteration_base_s=0.0109,
    iteration_per_task_s=0.000124,
    slots=96,
    token_energy_j=0.084,
    iteration_energy_j=5.2,
    prefill_per_token_s=0.00010,
    prefill_power_w=550.0,
    idle_power_w=180.0,
    model_load_s=FP16_8B_GB / 5.0,
    pod_start_s=POD_START_S,
    cpus=128,
    memory_gib=512,
    source="The H100 law of the ML.ENERGY leaderboard v3 times the memory-bandwidth ratio 1.64; checked against "
    "Argonne's LLM-Inference-Bench (Llama-3-8B, vLLM: 3.34 J per token at batch 1, 0.174 at 64, GPU only). "
    "Node share inferred.",
)

A100_33B = GpuType(
    key="a100-33b",
    product="NVIDIA-A100-SXM4-80GB",
    model_name="NVIDIA A100-SXM4-80GB",
    iteration_base_s=0.039,
    iteration_per_task_s=0.00028,
    slots=8,
    token_energy_j=0.25,
    iteration_energy_j=17.4,
    prefill_per_token_s=0.00051,
    prefill_power_w=550.0,
    idle_power_w=180.0,
    model_load_s=FP16_33B_GB / 5.0,
    pod_start_s=POD_START_S,
    cpus=128,
    memory_gib=512,
    source="Inferred: the Qwen3-32B law on H100 of the ML.ENERGY leaderboard v3 times the memory-bandwidth ratio 1.64; "
    "HF optimum LLM-Perf measured Yi-34B fp16 at batch 1: 56 ms and 15.3 J (GPU) per token, 0.51 ms per prompt token.",
)

H100 = GpuType(
    key="h100-8b",
    product="NVIDIA-H100-80GB-HBM3",
    model_name="NVIDIA H100 80GB HBM3",
    iteration_base_s=0.00667,
    iteration_per_task_s=0.000076,
    slots=128,
    token_energy_j=0.084,
    iteration_energy_j=4.4,
    prefill_per_token_s=0.00005,
    prefill_power_w=900.0,
    idle_power_w=220.0,
    model_load_s=FP16_8B_GB / 5.0,
    pod_start_s=POD_START_S,
    cpus=192,
    memory_gib=1024,
    source="ML.ENERGY leaderboard v3, Llama-3.1-8B, vLLM BF16: iteration 6.67 + 0.0758 B ms, 0.069 + 3.08 / B J per "
    "token (GPU only; scaled to the node). Prefill and node power inferred.",
)

CATALOGUE: Mapping[str, GpuType] = MappingProxyType(
    {gpu.key: gpu for gpu in (CPU_SERVER, JETSON_ORIN, T4, A10, RTX_4090, A100_8B, A100_33B, H100)}
)
"""All GPU types by key. Model load = size of the weights / an assumed read rate of 0.5-5 GB/s (inferred)."""
