"""The command ``perllm run``."""

from pathlib import Path

import click

from perllm.cli.options import explained
from perllm.cluster_options import FILE, cluster_options


@click.command()
@click.option("--config", "config_file", type=FILE, help="Configuration file (YAML). Default: all defaults.")
@cluster_options
@click.option(
    "--record",
    "journal",
    type=FILE,
    help="Record everything that decisions depend on in this file, for perllm-lab replay. It grows without limit.",
)
@click.option(
    "--starts",
    type=FILE,
    help="Record starts in this file, which must outlive the container, to give the Lease up after repeated crashes.",
)
@explained
def run(
    config_file: Path | None, kubeconfig: Path | None, context: str | None, journal: Path | None, starts: Path | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    The configuration selects the policy: policy.name is cs-ucb, or cs-ucb-table, the paper's, with one mean per arm.
    The sections policy.cs_ucb and policy.cs_ucb_table hold their parameters.
    """
    from perllm.cli.process import run_operator

    run_operator(config_file, kubeconfig, context, journal=journal, starts=starts)
