"""The agents of simulated nodes in one process: `python -m perllm_lab.nodes.agents --scenario modern`.

Each has the identity of an agent of the chart, a token that is bound to a pod on its node, and makes its requests to
the simulated model server of the node.
"""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from perllm.agent.agent import Agent
from perllm.agent.config import AgentConfig, ModelServerSettings
from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.credentials import Credentials, CredentialsError, load_credentials
from perllm_lab.hardware.scenario import NodeSpec, ScenarioError
from perllm_lab.workload.scenarios import load_scenario

NAMESPACE = "perllm-system"
ACCOUNT = "perllm-agent"
AGENT_LABELS = {"app.kubernetes.io/component": "agent"}
TOKEN_S = 7 * 24 * 3600
MAX_CONNECTIONS = 8
STARTS_AT_ONCE = 8
RETRY_S = 1.0


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Of an administrator.")
@click.option("--scenario", default="modern", show_default=True, help="A scenario of the lab, or a YAML file.")
@click.option("--servers", required=True, help="Base URL of the simulated nodes' server.")
@click.option("--node", "names", multiple=True, help="Only the agent of this node; may be repeated.")
def main(kubeconfig: Path | None, scenario: str, servers: str, names: tuple[str, ...]) -> None:
    """Run the agents of the nodes of a scenario until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        nodes = [node for node in load_scenario(scenario).nodes() if not names or node.name in names]
        asyncio.run(_serve(nodes, load_credentials(kubeconfig), servers))
    except (ApiError, CredentialsError, ScenarioError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(nodes: list[NodeSpec], credentials: Credentials, servers: str) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(Client(credentials))
        gate = asyncio.Semaphore(STARTS_AT_ONCE)

        async def build(node: NodeSpec) -> Agent:
            async with gate:
                own = with_token(credentials, await _wait_for_token(admin, node.name))
            client = await stack.enter_async_context(Client(own, max_connections=MAX_CONNECTIONS))
            return Agent(client, node.name, build_config(node, servers))

        agents = await asyncio.gather(*map(build, nodes))

        def stop() -> None:
            for agent in agents:
                agent.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        click.echo(f"ready agents={len(agents)}")
        async with asyncio.TaskGroup() as group:
            for agent in agents:
                group.create_task(agent.run())


def build_config(node: NodeSpec, servers: str) -> AgentConfig:
    """Return the configuration of the agent of a simulated node; its server does not say how many slots it has."""
    server = ModelServerSettings(url=f"{servers}/nodes/{node.name}/v1", slots=node.slots)
    return AgentConfig(servers=(server,), lease_namespace=NAMESPACE)


async def issue_token(admin: Client, node: str) -> str:
    """Return a token of the agents' account that is bound to a pod on a node, as kubelet requests it.

    Raises:
        ApiError: the API server denies it or cannot be reached.
    """
    pod = await _find_pod(admin, node)
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    request = {"spec": {"boundObjectRef": reference, "expirationSeconds": TOKEN_S}}
    token: str = (await admin.post(path, request))["status"]["token"]
    return token


async def _wait_for_token(admin: Client, node: str) -> str:
    """Return a token once the API server issues it, as kubelet starts a pod only then."""
    while True:
        try:
            return await issue_token(admin, node)
        except ApiError as error:
            if not error.is_transient:
                raise
        await asyncio.sleep(RETRY_S)


def with_token(credentials: Credentials, token: str) -> Credentials:
    """Return credentials for the same API server with a token instead of a certificate."""
    return replace(credentials, certificate_file=None, key_file=None, token=partial(str, token))


async def _find_pod(admin: Client, node: str) -> Object:
    """Return the pod of the agent on a node, created if there is none. The simulated kubelet does not run it."""
    path, name = names.pods_path(NAMESPACE), f"agent-{node}"
    spec = {
        "nodeName": node,
        "serviceAccountName": ACCOUNT,
        "containers": [{"name": "agent", "image": "simulated"}],
        "tolerations": [{"operator": "Exists"}],
    }
    try:
        return await admin.post(path, {"metadata": {"name": name, "labels": AGENT_LABELS}, "spec": spec})
    except ApiError as error:
        if error.status != 409:
            raise
        return await admin.get(f"{path}/{name}")


if __name__ == "__main__":
    main()
