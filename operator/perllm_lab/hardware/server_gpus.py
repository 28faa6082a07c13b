"""GPU types in data centres."""

from perllm_lab.hardware.edge_gpus import FP16_8B_GB, POD_START_S
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.kv_cache import LLAMA_3_8B_BYTES, QWEN_3_32B_BYTES, SERVED_TOKENS, SINGLE_TOKENS, find_token_s

FP16_33B_GB = 66.0

P100 = GpuType(
    key="p100-8b",
    product="Tesla-P100-PCIE-16GB",
    model_name="Tesla P100-PCIE-16GB",
    iteration_base_s=0.030,
    iteration_per_task_s=0.0020,
    slots=4,
    token_energy_j=0.40,
    iteration_energy_j=6.2,
    prefill_per_token_s=0.0014,
    prefill_power_w=270.0,
    idle_power_w=60.0,
    model_load_s=FP16_8B_GB / 1.0,
    pod_start_s=POD_START_S,
    cpus=32,
    memory_gib=120,
    source="Inferred: 13.5 GB of fp16 weights (7B) at 732 GB/s and the T4's efficiency of 0.6-0.75; 18.7 TFLOPS "
    "without tensor cores for the prefill and the slope; a Pascal GPU draws its limit while it decodes "
    "(llm-energy-bench, GTX 1080: 183 W). No measurement of an 8B model on this GPU was found.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 732.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.030,
)

V100_16 = GpuType(
    key="v100-16-8b",
    product="Tesla-V100-SXM2-16GB",
    model_name="Tesla V100-SXM2-16GB",
    iteration_base_s=0.023,
    iteration_per_task_s=0.0006,
    slots=4,
    token_energy_j=0.20,
    iteration_energy_j=5.6,
    prefill_per_token_s=0.0004,
    prefill_power_w=320.0,
    idle_power_w=70.0,
    model_load_s=FP16_8B_GB / 2.0,
    pod_start_s=POD_START_S,
    cpus=96,
    memory_gib=384,
    source="Inferred: fp16 weights at 900 GB/s and the A10's efficiency of 0.7, its prefill (both 125 TFLOPS, "
    "fp16), 300 W limit; as few slots as the T4, its memory being as small. No measurement of an 8B model on this "
    "GPU was found.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 900.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.023,
)

V100_32 = GpuType(
    key="v100-32-8b",
    product="Tesla-V100-SXM2-32GB",
    model_name="Tesla V100-SXM2-32GB",
    iteration_base_s=0.023,
    iteration_per_task_s=0.0006,
    slots=24,
    token_energy_j=0.20,
    iteration_energy_j=5.6,
    prefill_per_token_s=0.0004,
    prefill_power_w=320.0,
    idle_power_w=70.0,
    model_load_s=FP16_8B_GB / 2.0,
    pod_start_s=POD_START_S,
    cpus=96,
    memory_gib=384,
    source="Inferred: fp16 weights at 900 GB/s and the A10's efficiency of 0.7, its prefill (both 125 TFLOPS, "
    "fp16), 300 W limit; slots by what 32 GB hold next to the weights. No measurement of an 8B model on this GPU "
    "was found.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 900.0),
    context_tokens=SINGLE_TOKENS,
    prefill_least_s=0.023,
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
    source="The H100 law here times the memory-bandwidth ratio 1.64. Argonne's LLM-Inference-Bench measured 14.05 "
    "+ (0.147 + 0.226 per 1,000 tokens) B ms on the 40 GB model (Llama-3-8B, vLLM, prefill included, fit within 4 "
    "% rms), whose memory is 1.31 times slower: 10.7 ms at batch 0. Energy checked against its 0.124 + 3.20 / B J "
    "per token (GPU only, fit within 1 %). Prefill, idle and the node's share inferred.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 2039.0),
    context_tokens=SERVED_TOKENS,
    prefill_least_s=0.0109,
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
    source="Inferred: the law fitted to Qwen3-32B on H100 of the ML.ENERGY leaderboard v3 (23.8 + 0.170 B ms, "
    "0.210 + 12.1 / B J per token, GPU only, within 1 %; scaled to the node) times the memory-bandwidth ratio "
    "1.64; HF optimum LLM-Perf measured Yi-34B fp16 at batch 1: 56 ms and 15.3 J (GPU) per token, 0.51 ms per "
    "prompt token.",
    context_token_s=find_token_s(QWEN_3_32B_BYTES, 2039.0),
    context_tokens=SERVED_TOKENS,
    prefill_least_s=0.039,
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
    source="Fitted to the ML.ENERGY leaderboard v3, Llama-3.1-8B, vLLM BF16, batch 8-256: 6.66 + 0.0758 B ms "
    "(within 2 %), 0.068 + 3.13 / B J per token (within 5 %; GPU only, scaled to the node). Argonne's "
    "LLM-Inference-Bench, TensorRT-LLM: 7.24 + (0.039 + 0.117 per 1,000 tokens) B ms, prefill included, which "
    "bounds prefill at 0.04-0.07 ms with vLLM's 0.073. Prefill and node power inferred.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 3350.0),
    context_tokens=SERVED_TOKENS,
    prefill_least_s=0.00667,
)

H200 = GpuType(
    key="h200-8b",
    product="NVIDIA-H200",
    model_name="NVIDIA H200",
    iteration_base_s=0.00506,
    iteration_per_task_s=0.000076,
    slots=128,
    token_energy_j=0.082,
    iteration_energy_j=3.33,
    prefill_per_token_s=0.00005,
    prefill_power_w=900.0,
    idle_power_w=220.0,
    model_load_s=FP16_8B_GB / 5.0,
    pod_start_s=POD_START_S,
    cpus=192,
    memory_gib=2048,
    source="The H100's times the ratio of one of each, as measured by one program (docs/measured-gpu.md): an iteration "
    "at batch 0 takes 0.758 of the time and 0.757 of the energy, a token 0.972 of the energy of its own; what a task "
    "adds to an iteration, reading and the power limit are the same. Idle and node power inferred from the H100's.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 4800.0),
    context_tokens=SERVED_TOKENS,
    prefill_least_s=0.00506,
)

B200 = GpuType(
    key="b200-8b",
    product="NVIDIA-B200",
    model_name="NVIDIA B200",
    iteration_base_s=0.00389,
    iteration_per_task_s=0.000079,
    slots=64,
    token_energy_j=0.085,
    iteration_energy_j=3.74,
    prefill_per_token_s=0.000025,
    prefill_power_w=1300.0,
    idle_power_w=320.0,
    model_load_s=FP16_8B_GB / 5.0,
    pod_start_s=POD_START_S,
    cpus=192,
    memory_gib=2048,
    source="Fitted to the ML.ENERGY leaderboard v3, Llama-3.1-8B, vLLM BF16, batch 8-64: 3.89 + 0.079 B ms (within "
    "2 %), 0.070 + 2.62 / B J per token (within 4 %; GPU only, scaled to the node as the H100). Above 64 its "
    "iterations jump (26.7 ms at 128), so the batch ends there. Prefill, node and idle power inferred from the "
    "H100's.",
    context_token_s=find_token_s(LLAMA_3_8B_BYTES, 8000.0),
    context_tokens=SERVED_TOKENS,
    prefill_least_s=0.00389,
)
