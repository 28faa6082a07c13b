"""The tasks of ordinary users in several namespaces, drawn from a seed."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from e2e.requests import synthetic_requests
from perllm.api import names
from perllm.api.task_status import RunsAs
from perllm.cluster.client import ApiError, Client, Object
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.workload.manifests import served_task_manifest, task_manifest
from perllm_lab.workload.names import FAIL_ANNOTATION
from perllm_lab.workload.prompts import write_prompt
from perllm_lab.workload.requests import Request

SHORT_TTL = {"ttlAfterFinished": "1s"}
RETRIES = {"retries": 2}
TERMINATED = {"onDeadlineMissed": "Terminate"}
# Shares of all tasks; the rest has no option.
OPTIONS = ((SHORT_TTL, 0.25), (RETRIES, 0.2), (TERMINATED, 0.2))
FAILING_SHARE = 0.04
RETRY_S = 0.5
# Served tasks are short, so that a small machine carries many of them, apart from some that faults find running.
SHORT_TOKENS = 64
LONG_SHARE = 0.2


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
    scenario: Scenario,
    namespaces: Sequence[str],
    count: int,
    *,
    over_s: float,
    speed: float,
    seed: Sequence[int],
    runs_as: RunsAs,
) -> list[Order]:
    """Return about `count` tasks of all namespaces together, which arrive at random in `over_s`."""
    orders: list[Order] = []
    for number, namespace in enumerate(namespaces):
        share = -(-count // len(namespaces))
        requests = synthetic_requests(scenario, share, rate_per_s=share / over_s / speed, seed=[*seed, number])
        rng = Random(repr([*seed, number]))
        build = {RunsAs.POD: _build_pod_task, RunsAs.REQUEST: _build_served_task}[runs_as]
        orders += [
            Order(request.at_s / speed, namespace, build(request, namespace, speed, rng)) for request in requests
        ]
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


def _build_pod_task(request: Request, namespace: str, speed: float, rng: Random) -> Object:
    manifest = task_manifest(request, namespace=namespace, speed=speed)
    manifest["spec"].update(_choose_option(rng))
    if rng.random() < FAILING_SHARE:
        manifest["spec"]["template"]["metadata"]["annotations"][FAIL_ANNOTATION] = "true"
    return manifest


def _build_served_task(request: Request, namespace: str, speed: float, rng: Random) -> Object:
    option, is_long = _choose_option(rng), rng.random() < LONG_SHARE
    tokens = request.output_tokens if is_long else min(request.output_tokens, SHORT_TOKENS)
    request = replace(request, prompt_tokens=min(request.prompt_tokens, SHORT_TOKENS), output_tokens=tokens)
    manifest = served_task_manifest(request, namespace=namespace, speed=speed)
    # The ground truth has the key of the task: its name exists in each namespace.
    prompt = write_prompt(replace(request, name=f"{namespace}/{request.name}"))
    manifest["spec"].update({"prompt": prompt, **option})
    return manifest


def _choose_option(rng: Random) -> Object:
    options = [each for each, _ in OPTIONS]
    shares = [share for _, share in OPTIONS]
    (option,) = rng.choices([{}, *options], [1.0 - sum(shares), *shares])
    return option
