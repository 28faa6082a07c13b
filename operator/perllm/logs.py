"""Logging for people or for machines."""

import logging
import sys

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from perllm.config import LogSettings

# What Kopf hangs on its records for its own formatter; the settings hold objects that cannot be written as JSON.
KOPF_ATTRIBUTES = ("settings", "k8s_skip")

QUIET = ("kopf", "aiohttp.access", "urllib3", "asyncio")


def configure_logging(settings: LogSettings) -> None:
    """Send all log lines to standard error in the format asked for."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                reserved_attrs=[*RESERVED_ATTRS, *KOPF_ATTRIBUTES],
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns that it handles no signals in a thread, which is how it is meant.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
