"""A real LLM with an OpenAI API: SmolLM2-135M-Instruct on llama.cpp, small enough for two cores."""

from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from perllm_lab.kubernetes.process import Process
from realnode.model_server.installation import Installation
from realnode.sandbox import Sandbox

MODEL = "smollm2-135m-instruct"
PORT = 8000
_CONTEXT_TOKENS = 2048
_START_TIMEOUT_S = 60.0
_TOKEN_TIMEOUT_S = 20.0


class ModelServer:
    """SmolLM2 behind an OpenAI API at the node's address; ready inside the `async with` block.

    Args:
        installation: of the server.
        sandbox: of the node; open.
        log_file: for its output.
    """

    def __init__(self, installation: Installation, sandbox: Sandbox, log_file: Path) -> None:
        self.url = f"http://{sandbox.network.node}:{PORT}"
        options = {
            "--model": installation.weights,
            "--model_alias": MODEL,
            "--host": sandbox.network.node,
            "--port": PORT,
            "--n_ctx": _CONTEXT_TOKENS,
            "--interrupt_requests": "false",
        }
        words = (str(word) for option in options.items() for word in option)
        argv = sandbox.wrap(installation.python, "-m", "llama_cpp.server", *words)
        self._process = Process("model server", argv, log_file=log_file)

    async def __aenter__(self) -> Self:
        try:
            await self._process.start()
            await self._process.wait_until(self._writes_a_token, timeout_s=_START_TIMEOUT_S)
        except BaseException:
            await self._process.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._process.stop()

    async def _writes_a_token(self) -> bool:
        """Return whether it completes a prompt: a processor that lacks an instruction ends it only then."""
        request = {"model": MODEL, "prompt": "Hello", "max_tokens": 1}
        timeout = aiohttp.ClientTimeout(total=_TOKEN_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{self.url}/v1/completions", json=request) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
