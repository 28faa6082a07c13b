"""The command line of the agent; what it does is imported once it runs. It loads nothing of the operator."""

from pathlib import Path

import click

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
    from perllm.agent.process import run_agent

    run_agent(node, config_file, kubeconfig, context)
