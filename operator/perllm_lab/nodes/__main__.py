"""The simulated nodes as a process: `python -m perllm_lab.nodes --scenario modern`."""

import asyncio
import logging
import signal
from pathlib import Path

import click

from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import CredentialsError, load_credentials
from perllm_lab.hardware.scenario import Scenario, ScenarioError
from perllm_lab.nodes.fleet import SimulatedFleet
from perllm_lab.workload.scenarios import load_scenario


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Default: as kubectl finds it.")
@click.option("--scenario", default="modern", show_default=True, help="A scenario of the lab, or a YAML file.")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free port.")
@click.option("--resident", is_flag=True, help="Models are loaded from the start, as where model servers are up.")
@click.option("--truth", type=click.Path(path_type=Path, dir_okay=False), help="Where to append the ground truth.")
def main(
    kubeconfig: Path | None, scenario: str, speed: float, seed: int, port: int, resident: bool, truth: Path | None
) -> None:
    """Simulate the nodes of a scenario until SIGTERM or SIGINT; print the port once all nodes are registered."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        nodes = load_scenario(scenario)
        nodes = nodes.model_copy(update={"resident": nodes.resident or resident})
        asyncio.run(_serve(nodes, kubeconfig, speed=speed, seed=seed, port=port, truth=truth))
    except (ApiError, CredentialsError, ScenarioError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(
    scenario: Scenario, kubeconfig: Path | None, *, speed: float, seed: int, port: int, truth: Path | None
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        Client(load_credentials(kubeconfig)) as client,
        SimulatedFleet(scenario, client, speed=speed, seed=seed, truth_file=truth, port=port) as fleet,
    ):
        click.echo(f"ready port={fleet.port} nodes={len(fleet.hosts)}")
        await _first(asyncio.create_task(stop.wait()), asyncio.create_task(fleet.wait()))


async def _first(*tasks: "asyncio.Task[object]") -> None:
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        await task


if __name__ == "__main__":
    main()
