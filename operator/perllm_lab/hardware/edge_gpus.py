"""GPU types at the edge."""

from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.kv_cache import LLAMA_2_7B_BYTES, LLAMA_3_8B_BYTES, SINGLE_TOKENS, find_token_s

POD_START_S = 1.3
"""Creation to Running of a pod with a local image, kubelet 1.37 and containerd 1.6, our own measurement on 2 cores."""

FP16_8B_GB = 16.0
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
    source="Inferred: memory-bandwidth roofline (12 cores, 100 W, 115 GB/s) scaled from the Xeon measurements of "
    "CEUR Vol-4164 paper 11 (llama.cpp Q4) and HF optimum LLM-Perf (C7i). No measurement of this CPU is "
    "published.",
    context_token_s=find_token_s(LLAMA_2_7B_BYTES, 115.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.065,
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
    prefill_power_w=44.0,
    idle_power_w=11.0,
    model_load_s=FP16_8B_GB / 1.0,
    pod_start_s=POD_START_S,
    cpus=12,
    memory_gib=64,
    source="EdgeReasoning (arXiv 2511.01866), vLLM fp16 8B at batch 1: 100-103 ms per token, 2.79 J per token (GPU "
    "rail), prefill 512 tokens in 0.43 s. Prefill power from jetson-llm-maxperf (llama.cpp Q4_K_M, MAXN, all "
    "rails: 44.4 W, decode 47.6 W, idle 11.2 W). Slope with the batch and its energy split inferred.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 204.8),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.098,
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
    source="HF optimum LLM-Perf, Llama-7B fp16, batch 1: 59 ms per token, 208 ms for 256 prompt tokens, 4.1 J "
    "(GPU) to 11 J (node) per token. Slope with the batch and its energy split inferred.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 320.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.056,
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
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 600.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.034,
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
    source="XiongjieDai/GPU-Benchmarks, LLaMA-3-8B F16: 54.3 tokens/s, prefill 9056 tokens/s; node energy at batch "
    "1 from Fadel Argerich and Patino-Martinez, IEEE Access 2024 (7B FP16: 5.7-8.5 J per token). Batch split "
    "inferred.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 1008.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.0182,
)
