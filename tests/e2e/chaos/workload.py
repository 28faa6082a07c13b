"""The tasks of ordinary users in several namespaces, drawn from a seed."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from e2e.requests import synthetic_requests
from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.workload.manifests import task_manifest
from perllm_lab.workload.names import FAIL_ANNOTATION
from perllm_lab.workload.requests import Request

SHORT_TTL = {"ttlAfterFinished": "1s"}
RETRIES = {"retries": 2}
TERMINATED = {"onDeadlineMissed": "Terminate"}
# Shares of all tasks; the rest has no option.
OPTIONS = ((SHORT_TTL, 0.25), (RETRIES, 0.2), (TERMINATED, 0.2))
FAILING_SHARE = 0.04
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """A task, and the seconds from the start of a run to its creation."""

    at_s: float
    namespace: str
    manifest: Object

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.manifest['metadata']['name']}"


def plan_tasks(
    scenario: Scenario, namespaces: Sequence[str], count: int, *, over_s: float, speed: float, seed: Sequence[int]
) -> list[Order]:
    """Return about `count` tasks of all namespaces together, which arrive at random in `over_s`."""
    orders: list[Order] = []
    for number, namespace in enumerate(namespaces):
        share = -(-count // len(namespaces))
        requests = synthetic_requests(scenario, share, rate_per_s=share / over_s / speed, seed=[*seed, number])
        rng = Random(repr([*seed, number]))
        orders += [_order(request, namespace, speed, rng) for request in requests]
    return sorted(orders, key=lambda order: order.at_s)


async def create_tasks(client: Client, orders: Iterable[Order], start_s: float) -> None:
    """Create each task at its time after `start_s` (monotonic clock), and retry until the API server has accepted it.

    Raises:
        ApiError: the API server denies a task.
    """
    async with asyncio.TaskGroup() as group:
        for order in orders:
            await asyncio.sleep(start_s + order.at_s - time.monotonic())
            group.create_task(_create(client, order))


async def _create(client: Client, order: Order) -> None:
    while True:
        try:
            await client.post(names.tasks_path(order.namespace), order.manifest)
            return
        except ApiError as error:
            if error.status == 409:
                return  # an earlier request has reached the API server, only its answer has not arrived
            if not error.is_transient:
                raise
        await asyncio.sleep(RETRY_S)


def _order(request: Request, namespace: str, speed: float, rng: Random) -> Order:
    manifest = task_manifest(request, namespace=namespace, speed=speed)
    options = [each for each, _ in OPTIONS]
    shares = [share for _, share in OPTIONS]
    (option,) = rng.choices([{}, *options], [1.0 - sum(shares), *shares])
    manifest["spec"].update(option)
    if rng.random() < FAILING_SHARE:
        manifest["spec"]["template"]["metadata"]["annotations"][FAIL_ANNOTATION] = "true"
    return Order(request.at_s / speed, namespace, manifest)
