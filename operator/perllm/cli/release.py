"""The command ``perllm release``."""

import asyncio
import re
from pathlib import Path

import click

from perllm.cli.options import explained
from perllm.cluster_options import cluster_options


@click.command()
@cluster_options
@click.option("--namespace", "namespaces", multiple=True, help="Namespace of the pods; may be repeated. Default: all.")
@click.option("--stop", metavar="NAMESPACE/DEPLOYMENT", help="Scale this Deployment to 0 first, and wait for its pods.")
@explained
def release(kubeconfig: Path | None, context: str | None, namespaces: tuple[str, ...], stop: str | None) -> None:
    """Release the pods of tasks, before the operator is uninstalled or replaced by a version that does not retain pods.

    The operator retains each pod by a finalizer until its end is recorded, so without an operator no pod of a task
    can be deleted. Stop the operator first, since it retains the pods that it creates. Running pods continue.
    """
    if stop is not None and not re.fullmatch("[^/]+/[^/]+", stop):
        raise click.BadParameter("must be NAMESPACE/DEPLOYMENT, such as perllm-system/perllm", param_hint="--stop")
    from perllm.cluster.client import Client
    from perllm.cluster.credentials import load_credentials
    from perllm.cluster.release import release_pods, stop_deployment

    async def release_all() -> None:
        async with Client(load_credentials(kubeconfig, context)) as client:
            if stop is not None:
                await stop_deployment(client, *stop.split("/"), report=click.echo)
            await release_pods(client, namespaces, report=click.echo)

    asyncio.run(release_all())
