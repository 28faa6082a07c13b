"""Looks at one model server: whether it is ready, what it serves, and how busy it is."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from perllm.agent.addresses import ServerAddress
from perllm.agent.engines import (
    NO_LOAD,
    Load,
    is_ollama,
    read_load,
    read_loaded,
    read_models,
    read_slots,
    read_unloaded,
    recognise_metrics,
    recognise_owner,
)
from perllm.agent.slot_learning import SlotLearning
from perllm.api.node_server import InferenceEngine, NodeModelServer
from perllm.text import clean_line, error_line

TIMEOUT_S = 5.0
"""A server that takes longer for all answers together is not ready."""

METRICS_TIMEOUT_S = 2.0
"""The load is worth less than knowing that the server is ready."""

MAX_ANSWER_BYTES = 4 * 2**20
MAX_PROBLEM = 300
UNHEALTHY = 500
"""Statuses of a health check from here on; lower ones mean that there is none, or that it needs other rights."""


class _ProbeError(Exception):
    """The server is not ready; the message says why."""


class ServerProbe:
    """Probes a model server.

    Args:
        session: HTTP session.
        address: the server.
        count_own: returns the number of requests that PerLLM has in process there.
        learning: how many requests it processes at a time, as far as that shows.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: ServerAddress,
        count_own: Callable[[], int],
        learning: SlotLearning,
    ) -> None:
        self._session = session
        self._address = address
        self._count_own = count_own
        self._learning = learning
        self._engine = InferenceEngine.OTHER
        self._slots: int | None = None
        self._unloaded: frozenset[str] = frozenset()
        self._is_identified = False
        self._ready: NodeModelServer | None = None

    async def look(self) -> NodeModelServer:
        """Return the state of the server; what is wrong with it, if anything, is its `problem`.

        A server of an unknown engine is not asked while it answers us: llama-cpp-python ends a stream as soon as any
        other request arrives (its option ``interrupt_requests``), and has no load to report.
        """
        own = self._count_own()
        if self._ready and self._engine is InferenceEngine.OTHER and own:
            self._learning.see_load(NO_LOAD, own)
            self._ready = self._ready.model_copy(update=self._find_slots())
            return self._ready
        try:
            async with asyncio.timeout(TIMEOUT_S):
                models = await self._read_models()
                if self._engine is not InferenceEngine.SGLANG:  # its health check generates a token
                    await self._check_health()
        except TimeoutError:
            return self._fail(f"did not answer within {TIMEOUT_S:g} s")
        except (_ProbeError, aiohttp.ClientError, OSError, ValueError) as error:
            return self._fail(error_line(error))
        own = self._count_own()
        load = await self._read_load()
        own = max(own, self._count_own())
        if not self._is_identified:
            await self._identify()
        if self._engine is InferenceEngine.OLLAMA:
            await self._read_loaded(models)
        foreign = max(load.requests - own, 0)
        self._learning.see_load(load, own + foreign)
        self._ready = NodeModelServer(
            url=self._address.url,
            engine=self._engine,
            ready=True,
            models=models,
            unloaded=tuple(name for name in models if name in self._unloaded),
            **self._find_slots(),
            running=load.running,
            waiting=load.waiting,
            foreign=foreign,
            cache_use=load.cache_use,
        )
        return self._ready

    def _find_slots(self) -> dict[str, Any]:
        """Return the fields about slots."""
        stated = self._address.slots or self._slots
        learned = None if stated else self._learning.limit
        return {"slots": stated or learned, "slots_learned": True if learned else None}

    def _fail(self, problem: str) -> NodeModelServer:
        self._is_identified = False  # another server may come back
        self._learning.forget()
        self._ready = None
        return NodeModelServer(
            url=self._address.url,
            engine=self._engine,
            problem=clean_line(problem, MAX_PROBLEM),
            slots=self._address.slots or self._slots,
        )

    async def _read_models(self) -> tuple[str, ...]:
        status, content = await self._get(f"{self._address.url}/models")
        if status != 200:
            raise _ProbeError(f"its list of models was answered with status {status}")
        models = read_models(_parse(content))
        if not models:
            raise _ProbeError("it lists no models that a task could name: use letters, digits and . _ : / @ + -")
        self._engine = recognise_owner(models) or self._engine
        self._unloaded = read_unloaded(models)
        return tuple(one["id"] for one in models)

    async def _check_health(self) -> None:
        status, _ = await self._get(f"{self._address.root}/health")
        if status >= UNHEALTHY and status != 501:
            raise _ProbeError(f"its health check was answered with status {status}")

    async def _read_load(self) -> Load:
        """Return the load; unknown if the server does not report it in time."""
        try:
            async with asyncio.timeout(METRICS_TIMEOUT_S):
                status, content = await self._get(f"{self._address.root}/metrics")
        except (_ProbeError, aiohttp.ClientError, OSError):
            return NO_LOAD
        if status != 200:
            return NO_LOAD
        text = content.decode(errors="replace")
        self._engine = recognise_metrics(text) or self._engine
        return read_load(self._engine, text)

    async def _read_loaded(self, models: tuple[str, ...]) -> None:
        loaded = read_loaded(await self._try(f"{self._address.root}/api/ps"))
        self._unloaded = frozenset(models) - loaded if loaded is not None else frozenset()

    async def _identify(self) -> None:
        """Find out what neither the models nor the metrics show: the slots of llama.cpp, and Ollama."""
        self._slots = None
        if self._engine in (InferenceEngine.OTHER, InferenceEngine.LLAMA_CPP):
            self._slots = read_slots(await self._try(f"{self._address.root}/props"))
            if self._slots is not None:
                self._engine = InferenceEngine.LLAMA_CPP
        if self._engine is InferenceEngine.OTHER and is_ollama(await self._try(f"{self._address.root}/api/version")):
            self._engine = InferenceEngine.OLLAMA
        self._is_identified = True

    async def _try(self, url: str) -> Any:
        """Return the JSON at an address; None if there is none."""
        try:
            async with asyncio.timeout(METRICS_TIMEOUT_S):
                status, content = await self._get(url)
            return _parse(content) if status == 200 else None
        except (_ProbeError, aiohttp.ClientError, OSError):
            return None

    async def _get(self, url: str) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            _ProbeError: the body is larger than any that makes sense.
        """
        key = self._address.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            try:
                await response.content.readexactly(MAX_ANSWER_BYTES)
            except asyncio.IncompleteReadError as whole:
                return response.status, whole.partial
        raise _ProbeError(f"{url} was answered with more than {MAX_ANSWER_BYTES} bytes")


def _parse(content: bytes) -> Any:
    """Return the JSON in an answer.

    Raises:
        _ProbeError: it is none.
    """
    text = content.decode(errors="replace")
    try:
        return json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise _ProbeError(f"an answer is not JSON: {clean_line(text, 100)}") from error
