import numpy as np
import pytest

from perllm.learning.features import latency_features
from perllm.learning.priors import GENERIC, find_prior

ORDER_OF_SPEED = (
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
    assert all(np.less_equal(GENERIC.energy, find_prior(name).energy).all() for name in ORDER_OF_SPEED)


@pytest.mark.parametrize("name", ["", "unknown", "Some-Future-GPU", "NVIDIA-RTX-A1000", "Quadro-T400", "NVIDIA-GH100"])
def test_a_type_without_published_figures_starts_in_the_middle(name: str) -> None:
    assert find_prior(name) is GENERIC
