"""The command ``perllm doctor``."""

import asyncio
import sys
from pathlib import Path

import click

from perllm.cli.options import explained
from perllm.cluster_options import FILE, cluster_options


@click.command()
@click.option(
    "--config",
    "config_file",
    type=FILE,
    envvar="PERLLM_CONFIG",
    show_envvar=True,
    help="Configuration file (YAML) of the operator.",
)
@cluster_options
@click.option("--namespace", default="", help="Namespace that PerLLM is installed in. Default in a pod: its own.")
@click.option(
    "--service-account",
    default="perllm",
    show_default=True,
    help="Service account of the operator, if it has no pods yet.",
)
@click.option(
    "--user",
    envvar="PERLLM_USER",
    show_envvar=True,
    help="User of an operator that runs outside the cluster, as in a lab, instead of a service account.",
)
@click.option("--no-prometheus", "lacks_prometheus", is_flag=True, help="The cluster has no Prometheus, as intended.")
@click.option("--prometheus", help="URL of Prometheus as seen from here, instead of the configured one.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@explained
def doctor(
    config_file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str,
    service_account: str,
    user: str | None,
    lacks_prometheus: bool,
    prometheus: str | None,
    output: str,
) -> None:
    """Check a cluster for everything that PerLLM needs; change nothing. Exits with 1 if a check says FAIL.

    Before an installation, or from outside, it needs a kubeconfig that may read nodes, pods and tasks, and check the
    rights of other accounts (subjectaccessreviews). In the operator's pod it uses the operator's own account:

    kubectl -n perllm-system exec deploy/perllm -c operator -- perllm doctor --config /etc/perllm/perllm.yaml
    """
    from perllm.config import load_config
    from perllm.doctor.command import examine
    from perllm.doctor.rights import Account

    config = load_config(config_file)
    if prometheus:
        telemetry = config.telemetry.with_url(prometheus)
        config = config.model_copy(update={"telemetry": telemetry})
    place = Account(namespace, service_account)
    examination = examine(
        config,
        kubeconfig,
        context,
        place,
        user=user,
        has_prometheus=not lacks_prometheus,
        as_json=output == "json",
    )
    if not asyncio.run(examination):
        sys.exit(1)
