"""Fake agents in one process: each watches its tasks and renews its Lease by the code of the real ones.

Instead of making a request, a fake agent reports an answer at once. It has no model servers and publishes none.
"""

import asyncio
import time
from functools import partial
from pathlib import Path
from random import Random

import click

from perllm.agent.assignments import Assignment, WatchedAssignments
from perllm.agent.lease import RENEW_S, AgentLease
from perllm.agent.reports import RunReports
from perllm.agent.results import AttemptReport
from perllm.api.served_run import RunEnd, ServedRun
from perllm.api.task_status import Result
from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm.cluster.outages import Outages
from perllm.cluster.times import to_time
from perllm.cluster.writes import WriteQueue
from perllm.guard import Guard

NAMESPACE = "default"
OTHER_CONNECTIONS = 64
READY = "ready"


class Answerer:
    """Reports an answer to every assignment."""

    def __init__(self, reports: RunReports) -> None:
        self._reports = reports

    def assign(self, assignment: Assignment) -> None:
        now = to_time(time.time())
        run = ServedRun(attempt=assignment.attempt, end=RunEnd.ANSWERED, start_time=now, end_time=now, tokens=1)
        self._reports.put(assignment, AttemptReport(run, Result(text="Yes.")))

    def change(self, assignment: Assignment) -> None:
        pass

    def withdraw(self, assignment: Assignment) -> None:
        self._reports.drop(assignment)


def node_name(number: int) -> str:
    return f"fake-{number:04}"


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--agents", "count", type=int, required=True)
def main(kubeconfig: Path, count: int) -> None:
    asyncio.run(_run(kubeconfig, count))


async def _run(kubeconfig: Path, count: int) -> None:
    rng, outages = Random(0), Outages(time.monotonic)
    guard = Guard(lambda kind: None, rng)
    writes = WriteQueue(guard, outages, rng)
    async with Client(load_credentials(kubeconfig), max_connections=count + OTHER_CONNECTIONS) as client:
        listener = Answerer(RunReports(client, writes, now=time.monotonic))
        build = partial(
            WatchedAssignments, client, namespace=None, listener=listener, guard=guard, outages=outages, rng=rng
        )
        watches = [build(node=node_name(number)) for number in range(count)]
        async with asyncio.TaskGroup() as group:
            group.create_task(writes.run())
            for number, watch in enumerate(watches):
                group.create_task(watch.run())
                group.create_task(_renew(client, outages, number, rng.uniform(0.0, RENEW_S)))
            while not all(watch.is_synced for watch in watches):  # noqa: ASYNC110 - lists arrive from elsewhere
                await asyncio.sleep(0.1)
            click.echo(READY)


async def _renew(client: Client, outages: Outages, number: int, offset_s: float) -> None:
    await asyncio.sleep(offset_s)
    lease = AgentLease(
        client,
        NAMESPACE,
        node_name(number),
        now=time.monotonic,
        unix_now=time.time,
        outages=outages,
        on_renewed=lambda: None,
    )
    await lease.run()


if __name__ == "__main__":
    main()
