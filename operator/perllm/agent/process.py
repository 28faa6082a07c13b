"""The process of an agent."""

import asyncio
import signal
from pathlib import Path

import click
from prometheus_client import CollectorRegistry

from perllm.agent.agent import Agent
from perllm.agent.config import AgentConfig, load_agent_config
from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials, CredentialsError, load_credentials
from perllm.cluster.writes import WIDTH
from perllm.logs import configure_logging
from perllm.settings_file import ConfigError

SPARE_CONNECTIONS = 16
"""For the Lease, and all that is neither a write of the queue nor a watch of one of several namespaces."""


def run_agent(node: str, config_file: Path | None, kubeconfig: Path | None, context: str | None) -> None:
    """Run the agent of a node until SIGTERM or Ctrl-C.

    Raises:
        ClickException: the configuration or the credentials cannot be used.
    """
    try:
        config = load_agent_config(config_file)
        configure_logging(config.log)
        asyncio.run(_run(node, config, load_credentials(kubeconfig, context)))
    except (ConfigError, CredentialsError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(node: str, config: AgentConfig, credentials: Credentials) -> None:
    async with Client(credentials, max_connections=count_connections(config)) as client:
        node_agent = Agent(client, node, config, registry=CollectorRegistry())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, node_agent.stop)
        await node_agent.run()


def count_connections(config: AgentConfig) -> int:
    """Return how many connections there may be, so that the Lease waits neither for writes that hang nor for watches.

    Each watch holds a connection.
    """
    return WIDTH + SPARE_CONNECTIONS + len(config.namespaces) + len(config.server_namespaces)
