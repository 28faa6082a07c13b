"""The command ``perllm agent``; what it does is imported when it runs. It loads nothing of the operator."""

from pathlib import Path

import click

from perllm.cluster_options import FILE, cluster_options


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--node", required=True, envvar="NODE_NAME", show_envvar=True, help="Name of the node that it serves.")
@click.option("--config", "config_file", type=FILE, help="Configuration file (YAML) of the agent.")
@cluster_options
def agent(node: str, config_file: Path | None, kubeconfig: Path | None, context: str | None) -> None:
    """Run the agent of a node, which sends served tasks to the model servers there, until SIGTERM or Ctrl-C.

    When it is stopped, requests in process have the grace period of the configuration to end.
    """
    from perllm.agent.process import run_agent

    run_agent(node, config_file, kubeconfig, context)
