"""The process of the operator."""

import asyncio
import logging
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry

from perllm.cluster.client import Client
from perllm.cluster.credentials import Credentials, load_credentials
from perllm.collector import collect_rarely
from perllm.config import Config, load_config
from perllm.heap import keep_freed_memory
from perllm.logs import configure_logging
from perllm.operator import Operator
from perllm.shadow.operator import ShadowOperator
from perllm.wiring import Wiring

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
"""More than the concurrent writes, so that bindings and watches never wait for webhooks that hang."""

NAMESPACE_CONNECTIONS = 4
"""Further ones for each namespace that is listed: the watches of its pods of both kinds, quotas and Workloads."""


def run_operator(
    config_file: Path | None, kubeconfig: Path | None, context: str | None, *, journal: Path | None, starts: Path | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    Args:
        config_file: its configuration; None for all defaults.
        kubeconfig: kubeconfig of the cluster; None for where kubectl would look, or the pod's account.
        context: context of the kubeconfig.
        journal: where to record everything that decisions depend on; None for nowhere.
        starts: where to record starts; None for nowhere.

    Raises:
        ConfigError, CredentialsError, LeadershipError, OSError: it cannot start, or has to end.
    """
    config = load_config(config_file)
    configure_logging(config.log)
    for deprecation in config.deprecations:
        log.warning("%s: %s", *deprecation)
    credentials = load_credentials(kubeconfig, context)
    collect_rarely()
    keep_freed_memory()
    with journal.open("wb") if journal is not None else nullcontext() as file:
        asyncio.run(_run(config, credentials, file, starts))


async def _run(config: Config, credentials: Credentials, journal: IO[bytes] | None, starts: Path | None) -> None:
    connections = MAX_CONNECTIONS + NAMESPACE_CONNECTIONS * len(config.namespaces)
    async with Client(credentials, max_connections=connections) as client:
        operator: Operator | ShadowOperator
        if config.mode == "shadow":
            operator = ShadowOperator(config, client, CollectorRegistry(), journal)
        else:
            operator = Operator(
                Wiring(config, client, credentials, CollectorRegistry(), journal=journal, starts=starts)
            )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)
        await operator.run()
