"""Sizes of the models that are measured: those of Llama 3."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int = 128_256


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "llama-8b": Shape(layers=32, hidden=4096, heads=32, kv_heads=8, head_size=128, feed_forward=14336),
        "llama-3b": Shape(layers=28, hidden=3072, heads=24, kv_heads=8, head_size=128, feed_forward=8192),
        "llama-1b": Shape(layers=16, hidden=2048, heads=32, kv_heads=8, head_size=64, feed_forward=8192),
    }
)
