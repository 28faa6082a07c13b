"""What the lab installs in its cluster, as users do before the first start: definitions, rights, admission policies."""

import asyncio
from collections.abc import Sequence

from perllm.api import names
from perllm.api.crd import list_crds
from perllm.cluster.agent_policy import build_agent_policies
from perllm.cluster.authors import build_author_policy
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.rbac import (
    RBAC_GROUP,
    build_agent_manifests,
    build_manifests,
    build_shadow_manifests,
    collection_path,
)
from perllm.cluster.release_policy import build_release_policy
from perllm_lab.nodes.agents import ACCOUNT as AGENT_ACCOUNT
from perllm_lab.nodes.agents import NAMESPACE as AGENT_NAMESPACE

OPERATOR_USER = "perllm"
SCHEDULER_USER = "perllm-scheduler"
SERVED_TIMEOUT_S = 180.0


async def install(
    client: Client,
    namespaces: Sequence[str] = (),
    *,
    has_agents: bool = False,
    has_queues: bool = False,
    has_devices: bool = False,
    is_shadow: bool = False,
) -> None:
    """Install the resource definitions, least rights and admission policies, as users do before the first start.

    Args:
        client: of a user with the rights to do so.
        namespaces: are created, and are the only ones where the operator may manage tasks; all when empty.
        has_agents: whether the rights of agents are installed too.
        has_queues: whether the operator may use queues of Kueue.
        has_devices: whether the operator may see devices and claims.
        is_shadow: whether the operator gets the rights of shadow mode only.
    """
    for namespace in namespaces:
        await _apply(client, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for crd in list_crds():
        await _apply(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await wait_served(client, f"/apis/{names.API_VERSION}/{crd['spec']['names']['plural']}")
    operator, scheduler = (rbac_user(name) for name in (OPERATOR_USER, SCHEDULER_USER))
    agent_namespace = AGENT_NAMESPACE if has_agents else ""
    rights = (
        build_shadow_manifests(operator, namespaces=namespaces, has_devices=has_devices)
        if is_shadow
        else build_manifests(
            operator,
            scheduler,
            namespaces=namespaces,
            agent_namespace=agent_namespace,
            has_queues=has_queues,
            has_devices=has_devices,
        )
    )
    policies = [*build_author_policy(), *build_release_policy(OPERATOR_USER)]
    if has_agents:
        await _apply(client, "/api/v1/namespaces", {"metadata": {"name": AGENT_NAMESPACE}})
        account = {"kind": "ServiceAccount", "name": AGENT_ACCOUNT, "namespace": AGENT_NAMESPACE}
        await _apply(
            client, f"/api/v1/namespaces/{AGENT_NAMESPACE}/serviceaccounts", {"metadata": {"name": AGENT_ACCOUNT}}
        )
        rights += build_agent_manifests(account, AGENT_NAMESPACE, namespaces=namespaces, server_namespaces=())
        policies += build_agent_policies(f"system:serviceaccount:{AGENT_NAMESPACE}:{AGENT_ACCOUNT}")
    for manifest in [*rights, *policies]:
        await _apply(client, collection_path(manifest), manifest)


def rbac_user(name: str) -> dict[str, str]:
    """Return a user with a client certificate as an RBAC subject."""
    return {"kind": "User", "apiGroup": RBAC_GROUP, "name": name}


async def wait_served(client: Client, path: str) -> None:
    """Wait until the API server serves a new resource, which takes a moment."""
    async with asyncio.timeout(SERVED_TIMEOUT_S):
        while True:
            try:
                await client.get(path)
                return
            except ApiError:
                await asyncio.sleep(0.1)


async def _apply(client: Client, path: str, manifest: Object) -> None:
    """Create an object, or update the one that an earlier run of the lab left."""
    try:
        await client.post(path, manifest)
    except ApiError as error:
        if error.status != 409:
            raise
        await client.patch(f"{path}/{manifest['metadata']['name']}", manifest)
