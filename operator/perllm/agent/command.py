"""The command line of the agent. It also runs as ``python -m perllm.agent``, which loads nothing of the operator."""

import asyncio
import signal
from pathlib import Path

import click
from prometheus_client import CollectorRegistry

from perllm.agent.agent import Agent
from perllm.agent.config import AgentConfig, load_agent_config
from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials, CredentialsError, load_credentials
from perllm.logs import configure_logging
from perllm.settings_file import ConfigError

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--node", required=True, envvar="NODE_NAME", show_envvar=True, help="Name of the node that it serves.")
@click.option("--config", "config_file", type=_FILE, help="Configuration file (YAML) of the agent.")
@click.option(
    "--kubeconfig", type=_FILE, help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account."
)
@click.option("--context", help="Context of the kubeconfig.")
def agent(node: str, config_file: Path | None, kubeconfig: Path | None, context: str | None) -> None:
    """Run the agent of a node until SIGTERM or Ctrl-C: it sends served tasks to the model servers of the node.

    When it is stopped, requests in process get the grace period of the configuration to end.
    """
    try:
        config = load_agent_config(config_file)
        configure_logging(config.log)
        asyncio.run(_run(node, config, load_credentials(kubeconfig, context)))
    except (ConfigError, CredentialsError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(node: str, config: AgentConfig, credentials: Credentials) -> None:
    async with Client(credentials) as client:
        node_agent = Agent(client, node, config, registry=CollectorRegistry())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, node_agent.stop)
        await node_agent.run()
