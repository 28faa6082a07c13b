"""Commands that print what an installation consists of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from perllm.cli.options import config_option, explained


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Write one file per CRD here.")
@explained
def crds(output: Path | None) -> None:
    """Print the custom resource definitions, for kubectl apply --server-side -f -."""
    from perllm.api.crd import crd_files

    for name, text in crd_files().items():
        if output is None:
            click.echo(text if text.startswith("---") else f"---\n{text}", nl=False)
        else:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text, encoding="utf-8")


@click.command()
@config_option
@click.option("--namespace", default="perllm-system", show_default=True, help="Namespace of the service accounts.")
@click.option("--service-account", default="perllm", show_default=True, help="Service account of the operator.")
@click.option(
    "--scheduler-service-account",
    default="perllm-scheduler",
    show_default=True,
    help="Service account of kube-scheduler; may be that of the operator.",
)
@click.option(
    "--agent-service-account", default="perllm-agent", show_default=True, help="Service account of the agents."
)
@click.option(
    "--server-namespace",
    "server_namespaces",
    multiple=True,
    help="Namespace where agents look for pods of model servers; may be repeated. Default: that of --namespace.",
)
@explained
def rbac(
    config_file: Path | None,
    namespace: str,
    service_account: str,
    scheduler_service_account: str,
    agent_service_account: str,
    server_namespaces: tuple[str, ...],
) -> None:
    """Print the minimal roles that the operator, its kube-scheduler and the agents need under a configuration.

    If the configuration lists namespaces, rights to tasks are granted only there. If it has no namespace for the
    Leases of agents (agents.lease_namespace), there are no agents. In shadow mode (mode: shadow) the operator only
    reads, except for the profiles of nodes.
    """
    from perllm.cluster.rbac import build_agent_manifests, build_manifests, build_shadow_manifests
    from perllm.config import load_config

    config = load_config(config_file)
    places, agent_place, has_devices = config.namespaces, config.agents.lease_namespace, bool(config.nodes.devices)
    operator, scheduler, agent = (
        {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        for name in (service_account, scheduler_service_account, agent_service_account)
    )
    if config.mode == "shadow":
        manifests = build_shadow_manifests(operator, namespaces=places, has_devices=has_devices)
        _print(manifests)
        return
    manifests = build_manifests(
        operator,
        scheduler,
        namespaces=places,
        namespace=namespace,
        lease=config.leader_lease,
        agent_namespace=agent_place,
        has_queues=config.kueue.enabled,
        has_devices=has_devices,
    )
    if agent_place:
        servers = server_namespaces or (namespace,)
        manifests += build_agent_manifests(agent, agent_place, namespaces=places, server_namespaces=servers)
    _print(manifests)


@click.command("admission-policy")
@click.option("--namespace", default="perllm-system", show_default=True, help="Namespace of the service account.")
@click.option("--service-account", default="perllm", show_default=True, help="Service account of the operator.")
@click.option(
    "--agent-service-account", default="perllm-agent", show_default=True, help="Service account of the agents."
)
@explained
def admission_policy(namespace: str, service_account: str, agent_service_account: str) -> None:
    """Print the admission policies for authors of tasks, for the operator, and for agents.

    Only users who may create pods in a namespace may create tasks with a template there. Of a pod's status and
    metadata, the operator may change only its own finalizer, label and annotations. The agent of a node may write
    nothing that concerns another node. Leave out the second policy if kube-scheduler has the same account.
    """
    from perllm.cluster.agent_policy import build_agent_policies
    from perllm.cluster.authors import build_author_policy
    from perllm.cluster.release_policy import build_release_policy
    from perllm.doctor.rights import Account

    operator, agent = (Account(namespace, name).user for name in (service_account, agent_service_account))
    manifests = [*build_author_policy(), *build_release_policy(operator), *build_agent_policies(agent)]
    _print(manifests)


@click.command("scheduler-config")
@config_option
@click.option("--namespace", default="perllm-system", show_default=True, help="Namespace of the Lease, if one is used.")
@explained
def scheduler_config(config_file: Path | None, namespace: str) -> None:
    """Print the KubeSchedulerConfiguration for the kube-scheduler that runs next to the operator."""
    from perllm.config import load_config
    from perllm.extender.scheduler import scheduler_configuration

    config = load_config(config_file)
    url = f"http://127.0.0.1:{config.server.extender_port}"
    document = scheduler_configuration(url, config.scheduler_name, lease=config.leader_lease, namespace=namespace)
    _print([document])


def _print(documents: Sequence[Any]) -> None:
    import yaml

    click.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)
