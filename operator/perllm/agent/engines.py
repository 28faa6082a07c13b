"""The inference engines of model servers: how each is recognised, and what its figures are called.

The names are those in the sources of the engines:

* vLLM: ``vllm/v1/metrics/loggers.py``. Up to 0.10 the use of the cache was called ``gpu_cache_usage_perc``.
* SGLang: ``python/sglang/srt/metrics/collector.py``; only with ``--enable-metrics``.
* TGI: the reference of its metrics; there is no figure about the cache.
* llama.cpp: ``tools/server/server-context.cpp``; only with ``--metrics``. Newer versions have none about the cache.
* Ollama has no metrics; ``/api/version`` is its own.

In a list of models, vLLM, SGLang and llama.cpp name themselves as the owner. llama.cpp's router says there which models
are loaded, Ollama in ``/api/ps``; all others have their models in memory.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from perllm.api.node_server import MAX_SERVED_MODELS, InferenceEngine

MODEL_NAME = re.compile(r"[A-Za-z0-9/._][A-Za-z0-9._:/@+-]{0,252}")
"""What a task can name; other models cannot be asked for. Many servers name a model by the path of its weights."""

_NOT_LOADED = ("unloaded", "loading", "sleeping")

MAX_SLOTS = 100_000
MAX_REQUESTS = 10**6
"""More requests than any server processes; a larger number is ignored."""


@dataclass(frozen=True, slots=True)
class MetricNames:
    """What an engine calls its figures; the first name that is found counts.

    Attributes:
        prefix: how all its metrics begin.
        running: requests in process.
        waiting: requests that wait in the server.
        cache_use: share of the key-value cache that is in use, 0 to 1.
    """

    prefix: str
    running: str
    waiting: str
    cache_use: tuple[str, ...] = ()


ENGINES: Mapping[InferenceEngine, MetricNames] = MappingProxyType(
    {
        InferenceEngine.VLLM: MetricNames(
            "vllm:",
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        ),
        InferenceEngine.SGLANG: MetricNames(
            "sglang:", "sglang:num_running_reqs", "sglang:num_queue_reqs", ("sglang:token_usage",)
        ),
        InferenceEngine.TGI: MetricNames("tgi_", "tgi_batch_current_size", "tgi_queue_size"),
        InferenceEngine.LLAMA_CPP: MetricNames(
            "llamacpp:",
            "llamacpp:requests_processing",
            "llamacpp:requests_deferred",
            ("llamacpp:kv_cache_usage_ratio",),
        ),
    }
)

OWNERS: Mapping[str, InferenceEngine] = MappingProxyType(
    {"vllm": InferenceEngine.VLLM, "sglang": InferenceEngine.SGLANG, "llamacpp": InferenceEngine.LLAMA_CPP}
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a server reports about its load; None for what it does not report.

    Attributes:
        running: requests in process.
        waiting: requests that wait in the server.
        cache_use: share of the key-value cache that is in use; of several engines the largest.
    """

    running: int | None = None
    waiting: int | None = None
    cache_use: float | None = None

    @property
    def requests(self) -> int:
        """Requests in process or waiting, as far as known."""
        return (self.running or 0) + (self.waiting or 0)


NO_LOAD = Load()


def recognise_metrics(text: str) -> InferenceEngine | None:
    """Return the engine whose metrics these are; None if they are of none in the table."""
    for engine, names in ENGINES.items():
        if text.startswith(names.prefix) or f"\n{names.prefix}" in text:
            return engine
    return None


def read_load(engine: InferenceEngine, text: str) -> Load:
    """Return the load in the metrics of an engine; what is missing or makes no sense is unknown.

    An engine that runs several times in one server has a sample for each.
    """
    names = ENGINES.get(engine)
    if names is None:
        return NO_LOAD
    samples = _read_samples(text, (names.running, names.waiting, *names.cache_use))
    uses = [samples[name] for name in names.cache_use if name in samples]
    return Load(
        running=_count(samples.get(names.running, ())),
        waiting=_count(samples.get(names.waiting, ())),
        cache_use=max((one for one in uses[0] if 0 <= one <= 1), default=None) if uses else None,
    )


def recognise_owner(models: Iterable[Mapping[str, Any]]) -> InferenceEngine | None:
    """Return the engine that a list of models names as the owner; None if it names none in the table."""
    owners = (OWNERS.get(str(one.get("owned_by"))) for one in models)
    return next((engine for engine in owners if engine is not None), None)


def read_models(content: Any) -> list[dict[str, Any]]:
    """Return the models in an answer of ``/v1/models``: those whose names a task can have, without duplicates."""
    listed = content.get("data") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return []
    found = {one["id"]: one for one in listed if isinstance(one, dict) and _is_name(one.get("id"))}
    return list(found.values())[:MAX_SERVED_MODELS]


def read_slots(content: Any) -> int | None:
    """Return the number of slots in an answer of llama.cpp's ``/props``; None if it is none."""
    slots = content.get("total_slots") if isinstance(content, dict) else None
    return slots if type(slots) is int and 1 <= slots <= MAX_SLOTS else None


def is_ollama(content: Any) -> bool:
    """Whether this is an answer of Ollama's ``/api/version``."""
    return isinstance(content, dict) and isinstance(content.get("version"), str)


def read_loaded(content: Any) -> frozenset[str] | None:
    """Return the models in memory by an answer of Ollama's ``/api/ps``; None if it is none."""
    listed = content.get("models") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return None
    return frozenset(str(one.get("name")) for one in listed if isinstance(one, dict))


def read_unloaded(models: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the models that a list of models says are not in memory, as that of llama.cpp's router does."""
    states = ((one["id"], one.get("status")) for one in models)
    return frozenset(name for name, state in states if isinstance(state, dict) and state.get("value") in _NOT_LOADED)


def _read_samples(text: str, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the samples of these metrics; a server has thousands of others, which are not worth parsing."""
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(names))
    samples = defaultdict[str, list[float]](list)
    try:
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if sample.name in names and isfinite(sample.value):
                    samples[sample.name].append(sample.value)
    except ValueError:
        return {}
    return samples


def _count(values: Iterable[float]) -> int | None:
    counts = [value for value in values if 0 <= value <= MAX_REQUESTS]
    return round(sum(counts)) if counts else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and MODEL_NAME.fullmatch(value) is not None
