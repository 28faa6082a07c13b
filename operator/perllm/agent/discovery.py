"""Model servers in pods of the node: those with the label, in namespaces that the platform lists."""

import re
from collections.abc import Callable, Iterable
from random import Random

from yarl import URL

from perllm.agent.addresses import ServerAddress
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.informer import Informer
from perllm.cluster.outages import Outages
from perllm.guard import Guard

PORT_NAME = "http"


def read_pod_address(pod: Object) -> ServerAddress | None:
    """Return the address of the model server in a pod; None while it has none.

    The port is in the annotation `names.SERVER_PORT_ANNOTATION`, or that of a container which is called http.
    """
    status = pod.get("status") or {}
    if status.get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
        return None
    host, port = status.get("podIP"), _find_port(pod)
    if not host or port is None:
        return None
    return ServerAddress(str(URL.build(scheme="http", host=host, port=port, path="/v1")), is_in_pod=True)


def _find_port(pod: Object) -> int | None:
    annotated = (pod["metadata"].get("annotations") or {}).get(names.SERVER_PORT_ANNOTATION)
    if annotated is not None:
        return int(annotated) if re.fullmatch("[0-9]{1,5}", annotated) and 0 < int(annotated) < 65536 else None
    ports = (port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == PORT_NAME), None)


class ServerPods:
    """Follows the pods of the node that are model servers.

    Args:
        client: the API server.
        node: name of this node.
        namespaces: namespaces of the pods.
        on_change: called after every change.
        guard: records unexpected failures.
        outages: records watches that end in an error.
        rng: jitter of pauses.

    Attributes:
        informers: to be run; one per namespace.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        namespaces: Iterable[str],
        on_change: Callable[[], None],
        *,
        guard: Guard,
        outages: Outages,
        rng: Random,
    ) -> None:
        query = {"labelSelector": f"{names.SERVER_LABEL}=true", "fieldSelector": f"spec.nodeName={node}"}
        self.informers = [
            Informer(
                client,
                names.pods_path(namespace),
                read_pod_address,
                lambda old, new: on_change(),
                kind="pod",
                query=query,
                guard=guard,
                outages=outages,
                rng=rng,
            )
            for namespace in namespaces
        ]

    async def wait(self) -> None:
        """Return when the pods of all namespaces are known."""
        for informer in self.informers:
            await informer.synced.wait()

    @property
    def addresses(self) -> list[ServerAddress]:
        """The addresses of the servers, in the order of their pods' names."""
        return [address for one in self.informers for _, address in sorted(one.objects.items())]
