"""A real Prometheus that scrapes simulated exporters."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from perllm_lab.kubernetes.ports import LOOPBACK, find_free_ports
from perllm_lab.kubernetes.probe import answers
from perllm_lab.kubernetes.process import GO_ENVIRONMENT, Process

_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """One exporter.

    Attributes:
        job: value of the label `job`; targets may share it.
        address: host and port.
        metrics_path: HTTP path.
        instance: value of the label `instance`: the node's name, as kube-prometheus relabels it.
    """

    job: str
    address: str
    metrics_path: str
    instance: str


def render_configuration(
    targets: Iterable[ScrapeTarget], *, scrape_interval_s: float, rule_files: Iterable[Path] = ()
) -> dict[str, Any]:
    """Render a Prometheus configuration with static targets."""
    interval = f"{round(scrape_interval_s * 1000)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(file) for file in rule_files],
        "scrape_configs": [
            {"job_name": job, "static_configs": [_render_target(target) for target in members]}
            for job, members in groupby(sorted(targets, key=lambda target: target.job), key=lambda target: target.job)
        ],
    }


def _render_target(target: ScrapeTarget) -> dict[str, Any]:
    # The path is set by a label, so the targets of one job may have different ones.
    return {
        "targets": [target.address],
        "labels": {"instance": target.instance, "__metrics_path__": target.metrics_path},
    }


class Prometheus:
    """A Prometheus server; ready inside the `async with` block.

    Args:
        binary: the program, as `toolchain.provide` returns it.
        folder: used by this run only, for configuration, data and log.
        targets: that it scrapes.
        scrape_interval_s: time between two scrapes of a target, and the timeout of a scrape.
        rule_files: recording and alerting rules, evaluated at the same interval.
        address: that it listens on; real pods need one that they can reach.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        targets: Sequence[ScrapeTarget],
        *,
        scrape_interval_s: float,
        rule_files: Sequence[Path] = (),
        address: str = LOOPBACK,
    ) -> None:
        (port,) = find_free_ports(1)
        self.url = f"http://{address}:{port}"
        self._folder = folder
        self._configuration = render_configuration(targets, scrape_interval_s=scrape_interval_s, rule_files=rule_files)
        argv = (
            binary,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            # A killed server leaves its lock file behind, and the next one would wait for it.
            "--storage.tsdb.no-lockfile",
            # The targets are known from the start; by default discovery runs only every five seconds.
            "--scrape.discovery-reload-interval=100ms",
            f"--web.listen-address={address}:{port}",
        )
        log_file = folder / "prometheus.log"
        self.process = Process("prometheus", argv, log_file=log_file, environment=GO_ENVIRONMENT | os.environ)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, with the port and the data of an earlier start, and wait until it answers queries.

        Raises:
            ProcessError: it ended or was not ready in time; the message quotes the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(self._configuration))
        await self.process.start()
        await self.process.wait_until(lambda: answers(f"{self.url}/-/ready"), timeout_s=_START_TIMEOUT_S)

    async def stop(self) -> None:
        """Stop it in an orderly way."""
        await self.process.stop()

    async def kill(self) -> None:
        """Kill it, as a crash would."""
        await self.process.kill()
