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
    help="File in which to record everything that decisions depend on, for perllm-lab replay. It grows without limit.",
)
@click.option(
    "--starts",
    type=FILE,
    help="File in which to record starts, to give up the Lease after repeated crashes. It must outlive the container.",
)
@explained
def run(
    config_file: Path | None, kubeconfig: Path | None, context: str | None, journal: Path | None, starts: Path | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    The configuration selects the policy: policy.name is cs-ucb, or cs-ucb-table, the paper's, with one mean per arm.
    Their parameters are in policy.cs_ucb and policy.cs_ucb_table.
    """
    from perllm.cli.process import run_operator

    run_operator(config_file, kubeconfig, context, journal=journal, starts=starts)
