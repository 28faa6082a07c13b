import numpy as np
import pytest

from perllm.learning.features import latency_features
from perllm.learning.priors import GENERIC, find_prior

ORDER_OF_SPEED = (
    "NVIDIA-H200",
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-A100-SXM4-80GB",
    "NVIDIA-GeForce-RTX-4090",
    "NVIDIA-A10",
    "Tesla-T4",
    "NVIDIA-Jetson-AGX-Orin",
)


def test_published_figures_order_the_types_before_anything_was_observed() -> None:
    task = latency_features(1000, 0, 200, 1.0)
    seconds = [float(task @ np.array(find_prior(name).latency)) for name in ORDER_OF_SPEED]
    assert seconds == sorted(seconds)


def test_a_type_without_published_figures_seems_thrifty_so_that_it_is_tried() -> None:
    assert all(np.less_equal(GENERIC.energy, find_prior(name).energy).all() for name in ORDER_OF_SPEED[1:])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA-A100-SXM4-80GB-SHARED", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-SXM4-80GB"),
        ("a100", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA-H200-NVL", "NVIDIA-H200"),
        ("tesla-t4", "Tesla-T4"),
        ("Orin-(nvgpu)", "NVIDIA-Jetson-AGX-Orin"),
    ],
)
def test_spellings_of_a_type_share_its_figures(name: str, known: str) -> None:
    assert find_prior(name) is find_prior(known) is not GENERIC


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA-RTX-A1000",
        "NVIDIA-T400-4GB",
        "NVIDIA-Jetson-T4000",
        "NVIDIA-A10G",
        "NVIDIA-GH200-480GB",
        "NVIDIA-H200-MIG-1g.18gb",
        "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
        "GRID-A100-10C",
        "NVIDIA-A10-24Q",
        "NVIDIA-A100-1-5CME",
        "NVIDIA-GeForce-RTX-4090-Laptop-GPU",
        "NVIDIA-Jetson-Orin-Nano",
        "Orin-NX-SHARED",
    ],
)
def test_another_or_a_smaller_gpu_is_not_taken_for_a_known_one(name: str) -> None:
    assert find_prior(name) is GENERIC


@pytest.mark.parametrize("name", ["", "unknown", "Some-Future-GPU", "NVIDIA-RTX-A1000", "Quadro-T400", "NVIDIA-GH100"])
def test_a_type_without_published_figures_starts_in_the_middle(name: str) -> None:
    assert find_prior(name) is GENERIC
