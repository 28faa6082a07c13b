#!/bin/sh
# The labels that PerLLM reads from a node: its tier (perllm.io/tier), its GPU type (nvidia.com/gpu.product) and, if its slots
# are spread over several GPUs, their number (nvidia.com/gpu.count). gpu-feature-discovery of NVIDIA's device plugin sets the
# last two; you set the tier. Replace the names of the nodes with yours.
set -eu

# Jetson AGX Orin: it has no NVML, so all labels are set by hand. The last one counts if no device plugin reports its GPU.
kubectl label --overwrite node jetson-1 \
  perllm.io/tier=edge nvidia.com/gpu.product=Jetson-AGX-Orin nvidia.com/gpu.count=1 perllm.io/slots=1

# A server with a T4 at the edge, without gpu-feature-discovery.
kubectl label --overwrite node t4-1 \
  perllm.io/tier=edge nvidia.com/gpu.product=Tesla-T4 nvidia.com/gpu.count=1

# An A100 in the cloud, labelled by gpu-feature-discovery, for example NVIDIA-A100-SXM4-80GB: only the tier is missing.
kubectl label --overwrite node a100-1 perllm.io/tier=cloud

kubectl get nodes --label-columns=perllm.io/tier,nvidia.com/gpu.product,nvidia.com/gpu.count
