"""The command line of the operator."""

import asyncio
import logging
import re
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import IO, ParamSpec

import click
import yaml
from prometheus_client import CollectorRegistry

from perllm.agent.command import agent
from perllm.api.crd import crd_files
from perllm.cluster.agent_policy import build_agent_policies
from perllm.cluster.authors import build_author_policy
from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import Credentials, CredentialsError, load_credentials
from perllm.cluster.leadership import LeadershipError
from perllm.cluster.rbac import build_agent_manifests, build_manifests, build_shadow_manifests
from perllm.cluster.release import ReleaseError, release_pods, stop_deployment
from perllm.cluster.release_policy import build_release_policy
from perllm.collector import collect_rarely
from perllm.config import Config, load_config
from perllm.doctor.command import examine
from perllm.doctor.rights import Account
from perllm.extender.scheduler import scheduler_configuration
from perllm.logs import configure_logging
from perllm.operator import Operator
from perllm.overview.command import explain, top
from perllm.reporting.command import bill, report
from perllm.settings_file import ConfigError
from perllm.shadow.operator import ShadowOperator
from perllm.submission.command import submit

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
"""More than the concurrent writes, so that bindings and watches never wait for webhooks that hang."""

_P = ParamSpec("_P")
_FILE = click.Path(dir_okay=False, path_type=Path)


def _explained(command: Callable[_P, None]) -> Callable[_P, None]:
    """Turn expected failures into a single line that says what to do."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ConfigError, CredentialsError, LeadershipError, ReleaseError, ApiError, OSError) as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="perllm")
def main() -> None:
    """Place LLM inference tasks on edge and cloud nodes, to meet deadlines at the least energy, learning online."""


main.add_command(agent)
main.add_command(bill)
main.add_command(report)
main.add_command(submit)
main.add_command(top)
main.add_command(explain)


@main.command()
@click.option("--config", "config_file", type=_FILE, help="Configuration file (YAML). Default: all defaults.")
@click.option(
    "--kubeconfig", type=_FILE, help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--record",
    "journal",
    type=_FILE,
    help="Record everything that decisions depend on in this file, for perllm-lab replay. It grows without limit.",
)
@click.option(
    "--starts",
    type=_FILE,
    help="Record starts in this file, which must outlive the container, to give the Lease up after repeated crashes.",
)
@_explained
def run(
    config_file: Path | None, kubeconfig: Path | None, context: str | None, journal: Path | None, starts: Path | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    The configuration selects the policy: policy.name is cs-ucb, or cs-ucb-table, the paper's, with one mean per arm.
    The sections policy.cs_ucb and policy.cs_ucb_table hold their parameters.
    """
    config = load_config(config_file)
    configure_logging(config.log)
    for deprecation in config.deprecations:
        log.warning("%s: %s", *deprecation)
    credentials = load_credentials(kubeconfig, context)
    collect_rarely()
    with journal.open("wb") if journal is not None else nullcontext() as file:
        asyncio.run(_run(config, credentials, file, starts))


@main.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Write one file per CRD here.")
@_explained
def crds(output: Path | None) -> None:
    """Print the custom resource definitions, for kubectl apply -f -."""
    for name, text in crd_files().items():
        if output is None:
            click.echo(text if text.startswith("---") else f"---\n{text}", nl=False)
        else:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text, encoding="utf-8")


@main.command()
@click.option("--config", "config_file", type=_FILE, help="Configuration file (YAML) of the operator.")
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
@_explained
def rbac(
    config_file: Path | None,
    namespace: str,
    service_account: str,
    scheduler_service_account: str,
    agent_service_account: str,
    server_namespaces: tuple[str, ...],
) -> None:
    """Print the least roles that the operator, its kube-scheduler and the agents need with a configuration.

    If the configuration lists namespaces, rights about tasks are granted only there. If it has no namespace for the
    Leases of agents (agents.lease_namespace), there are no agents. In shadow mode (mode: shadow) the operator only
    reads, except for the profiles of nodes.
    """
    config = load_config(config_file)
    places, agent_place, has_devices = config.namespaces, config.agents.lease_namespace, bool(config.nodes.devices)
    operator, scheduler, agent = (
        {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        for name in (service_account, scheduler_service_account, agent_service_account)
    )
    if config.mode == "shadow":
        manifests = build_shadow_manifests(operator, namespaces=places, has_devices=has_devices)
        click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
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
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


@main.command("admission-policy")
@click.option("--namespace", default="perllm-system", show_default=True, help="Namespace of the service account.")
@click.option("--service-account", default="perllm", show_default=True, help="Service account of the operator.")
@click.option(
    "--agent-service-account", default="perllm-agent", show_default=True, help="Service account of the agents."
)
@_explained
def admission_policy(namespace: str, service_account: str, agent_service_account: str) -> None:
    """Print the admission policies about authors of tasks, about the operator, and about agents.

    Only users who may create pods in a namespace may create tasks with a template there; of a pod's status and
    metadata, the operator may change nothing but its own finalizer; and the agent of a node may write nothing that
    concerns another node. Leave the second one out if kube-scheduler has the same account.
    """
    operator, agent = (Account(namespace, name).user for name in (service_account, agent_service_account))
    manifests = [*build_author_policy(), *build_release_policy(operator), *build_agent_policies(agent)]
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)


@main.command()
@click.option(
    "--kubeconfig", type=_FILE, help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--namespace", "namespaces", multiple=True, help="Namespace of the pods; may be repeated. Default: all.")
@click.option("--stop", metavar="NAMESPACE/DEPLOYMENT", help="Scale this Deployment to 0 first, and wait for its pods.")
@_explained
def release(kubeconfig: Path | None, context: str | None, namespaces: tuple[str, ...], stop: str | None) -> None:
    """Release the pods of tasks, before the operator is uninstalled or replaced by a version that does not retain pods.

    The operator retains a pod by a finalizer until its end is recorded, so without an operator no pod of a task could
    be deleted. Stop the operator first: it retains the pods that it creates. Running pods continue.
    """
    if stop is not None and not re.fullmatch("[^/]+/[^/]+", stop):
        raise click.BadParameter("must be NAMESPACE/DEPLOYMENT, such as perllm-system/perllm", param_hint="--stop")
    asyncio.run(_release(load_credentials(kubeconfig, context), namespaces, stop))


@main.command("scheduler-config")
@click.option("--config", "config_file", type=_FILE, help="Configuration file (YAML) of the operator.")
@click.option("--namespace", default="perllm-system", show_default=True, help="Namespace of the Lease, if one is used.")
@_explained
def scheduler_config(config_file: Path | None, namespace: str) -> None:
    """Print the KubeSchedulerConfiguration for the kube-scheduler that runs next to the operator."""
    config = load_config(config_file)
    url = f"http://127.0.0.1:{config.server.extender_port}"
    document = scheduler_configuration(url, config.scheduler_name, lease=config.leader_lease, namespace=namespace)
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


@main.command()
@click.option(
    "--config",
    "config_file",
    type=_FILE,
    envvar="PERLLM_CONFIG",
    show_envvar=True,
    help="Configuration file (YAML) of the operator.",
)
@click.option(
    "--kubeconfig", type=_FILE, help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account."
)
@click.option("--context", help="Context of the kubeconfig.")
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
    help="User of an operator that runs outside of the cluster, as in a lab, instead of a service account.",
)
@click.option("--no-prometheus", "lacks_prometheus", is_flag=True, help="The cluster is meant to have no Prometheus.")
@click.option("--prometheus", help="URL of Prometheus as seen from here, instead of the configured one.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@_explained
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
    """Read the cluster and report what PerLLM is missing there; change nothing. Exits with 1 if a check says FAIL.

    Before an installation, or from outside, it needs a kubeconfig that may read nodes, pods and tasks, and check the
    rights of other accounts (subjectaccessreviews). In the operator's pod it uses the operator's own account:

    kubectl exec deploy/perllm -c operator -- perllm doctor --config /etc/perllm/perllm.yaml
    """
    config = load_config(config_file)
    if prometheus:
        telemetry = config.telemetry.model_copy(update={"url": prometheus})
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


async def _run(config: Config, credentials: Credentials, journal: IO[bytes] | None, starts: Path | None) -> None:
    async with Client(credentials, max_connections=MAX_CONNECTIONS) as client:
        operator: Operator | ShadowOperator
        if config.mode == "shadow":
            operator = ShadowOperator(config, client, CollectorRegistry(), journal)
        else:
            operator = Operator(config, client, credentials, CollectorRegistry(), journal, starts)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)
        await operator.run()


async def _release(credentials: Credentials, namespaces: tuple[str, ...], stop: str | None) -> None:
    async with Client(credentials) as client:
        if stop is not None:
            await stop_deployment(client, *stop.split("/"), report=click.echo)
        await release_pods(client, namespaces, report=click.echo)


if __name__ == "__main__":
    sys.exit(main())
