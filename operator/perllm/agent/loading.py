"""Has a model server load a model before a request is made, so that it is known how long that takes.

Ollama loads a model when it gets a request without a prompt, and answers once that is done. The API of OpenAI does not
say how much of the time to the first token was loading.
"""

import aiohttp

from perllm.agent.addresses import ServerAddress
from perllm.api.node_server import InferenceEngine, NodeModelServer


def can_load(state: NodeModelServer | None, model: str) -> bool:
    """Whether a server does not have a model in memory, and can be asked to load it."""
    return state is not None and state.engine is InferenceEngine.OLLAMA and model in state.unloaded


async def load_model(session: aiohttp.ClientSession, address: ServerAddress, model: str) -> bool:
    """Have a server load a model, and return whether it has; if not, the request itself will show why."""
    headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
    body = {"model": model, "stream": False}
    try:
        async with session.post(
            f"{address.root}/api/generate", json=body, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False
