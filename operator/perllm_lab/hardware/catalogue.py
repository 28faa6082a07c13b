"""The GPU types of the lab, each figure with its public source.

Joules are of the whole node as far as the source allows; where it gives GPU energy only, the figures here were
scaled towards the node (Google, arXiv 2508.15734: accelerators are 58 % of a serving system's energy).
`a + b B` is an iteration in ms at batch B, `e0 + e1 / B` joules per decoded token. Fits are least squares of the
relative error; "within x %" is the largest error at a fitted point.
"""

from collections.abc import Mapping
from types import MappingProxyType

from perllm_lab.hardware.edge_gpus import A10, CPU_SERVER, JETSON_ORIN, RTX_4090, T4
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.server_gpus import A100_8B, A100_33B, B200, H100, H200, P100, V100_16, V100_32

CATALOGUE: Mapping[str, GpuType] = MappingProxyType(
    {
        gpu.key: gpu
        for gpu in (
            *(CPU_SERVER, JETSON_ORIN, T4, A10, RTX_4090),
            *(P100, V100_16, V100_32, A100_8B, A100_33B, H100, H200, B200),
        )
    }
)
"""All GPU types by key. Model load = size of the weights / an assumed read rate of 0.5-5 GB/s (inferred)."""

__all__ = ["A100_8B", "A100_33B", "CATALOGUE", "JETSON_ORIN"]
