"""PerLLM's real extender in a process of its own, with stand-ins for what surrounds it.

    PYTHONPATH=tests python -m bench.lone_extender --nodes 1000 --port 10261 [--kubeconfig FILE]

Real: HTTP server, handlers, policy, learned laws, fleet, ledger, and how memory is managed. Stand-ins: nodes come from
the scenario instead of a watch, every pod stands for a task of its own, and without a kubeconfig bindings go to an API
server that says yes.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry

from bench.fleets import DEADLINE_S, build_request, build_scenario
from perllm.api.task import Tier
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import load_credentials
from perllm.cluster.node import Node, NodeLabels, read_node
from perllm.cluster.outages import Outages
from perllm.cluster.writes import WriteQueue
from perllm.collector import collect_rarely
from perllm.config import Config
from perllm.extender.extender import Extender
from perllm.extender.retries import Retries
from perllm.extender.server import build_app
from perllm.guard import Guard
from perllm.heap import keep_freed_memory
from perllm.learning.outcome import ObservedRun, Outcome
from perllm.metrics import OperatorMetrics
from perllm.placement.fleet import Bandwidth
from perllm.placement.request import PlacementRequest
from perllm.scheduling.assembly import build_scheduler, read_settings
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.registration import node_object

OUTCOMES_PER_NODE = 3


class YesApi(Client):
    """Stand-in for an API server: accepts every request at once."""

    def __init__(self) -> None:
        pass

    async def post(self, path: str, body: object, **query: str) -> Object:
        """Accept a binding."""
        return {}


@click.command()
@click.option("--nodes", type=int, required=True)
@click.option("--port", type=int, required=True)
@click.option("--kubeconfig", type=click.Path(path_type=Path))
def main(nodes: int, port: int, kubeconfig: Path | None) -> None:
    """Serve until killed."""
    keep_freed_memory()
    asyncio.run(_serve(nodes, port, kubeconfig))


async def _serve(nodes: int, port: int, kubeconfig: Path | None) -> None:
    if kubeconfig is None:
        await _listen(nodes, port, YesApi())
        return
    async with Client(load_credentials(kubeconfig)) as client:
        await _listen(nodes, port, client)


async def _listen(nodes: int, port: int, client: Client) -> None:
    scheduler, parts = build_loaded_scheduler(nodes)
    guard, rng = Guard(lambda _: None, Random(0)), Random(0)
    retries = Retries(
        client,
        WriteQueue(guard, Outages(time.monotonic), rng),
        has_room=lambda request: scheduler.consider(request).node is not None,
        guard=guard,
        now_s=time.monotonic,
        unix_now=time.time,
    )
    extender = Extender(
        scheduler,
        parts.ledger,
        client,
        request_of=_request_of,
        retries=retries,
        note_bound=lambda *_: None,
        note_denied=lambda _: None,
    )
    collect_rarely()
    runner = web.AppRunner(build_app(extender, OperatorMetrics(CollectorRegistry()), guard), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def build_loaded_scheduler(nodes: int) -> tuple[Scheduler, Parts]:
    """Return a scheduler that knows every node and has learned a little on each."""
    settings = read_settings(Config(), seed=0)
    scheduler, parts = build_scheduler(settings, Inputs(HeldClock(time.monotonic, time.time)))
    rng = np.random.default_rng(0)
    for spec in build_scenario(nodes).nodes():
        scheduler.put_node(_read(spec), Bandwidth(spec.link.bandwidth_bps, 0.0))
        for index in range(OUTCOMES_PER_NODE):
            scheduler.learn(_outcome(spec, index, rng), spec.gpu.product)
    return scheduler, parts


def _read(spec: NodeSpec) -> Node:
    item = node_object(spec, datetime.now(UTC))
    item["metadata"]["uid"] = spec.name
    node = read_node(item, NodeLabels())
    if node is None:
        raise ValueError(f"{spec.name} is no node of PerLLM's")
    return node


def _outcome(spec: NodeSpec, index: int, rng: np.random.Generator) -> Outcome:
    run_s = 1.0 + 100 * spec.gpu.iteration_s(1) * rng.uniform(0.8, 1.2)
    return Outcome(
        run=ObservedRun(
            task_id=f"{spec.name}-{index}",
            model="chat",
            node=spec.name,
            prompt_tokens=400.0,
            hint_tokens=None,
            run_s=run_s,
            occupancy=1.0,
            others_tokens=0.0,
            cold=0.0,
        ),
        output_tokens=100.0,
        latency_s=run_s + 1.0,
        deadline_s=DEADLINE_S,
        inference_energy_j=100 * (spec.gpu.token_energy_j + spec.gpu.iteration_energy_j),
        transmission_energy_j=0.01,
        predicted_energy_j=500.0,
        run_error=None,
        energy_error=None,
        resource_slack=0.9,
        finished_s=float(index + 1),
    )


def _request_of(pod: dict[str, Any]) -> PlacementRequest:
    work = build_request("any")
    return PlacementRequest(
        task_id=pod["metadata"]["uid"],
        model=work.model,
        prompt_tokens=work.prompt_tokens,
        output_tokens=None,
        input_bytes=work.input_bytes,
        tiers=frozenset(Tier),
        due_s=time.time() + work.deadline_s,
        deadline_s=work.deadline_s,
    )


if __name__ == "__main__":
    main()
