"""TCP ports of the loopback interface for components that start a moment later."""

import contextlib
import os
import random
import socket
import tempfile
import time
from itertools import islice
from pathlib import Path

from perllm_lab.kubernetes.process import ProcessError

LOOPBACK = "127.0.0.1"
CLAIM_S = 300.0
_FIRST_PORT = 10_000
_DEFAULT_FIRST_EPHEMERAL_PORT = 32_768


def find_free_ports(count: int) -> list[int]:
    """Find ports that are not in use, and claim them until their components have had time to bind them.

    They lie below the kernel's ephemeral range; otherwise an outgoing connection could take the port of a component
    while that component restarts. Claims are files that all processes of this user see, so that no port is found twice,
    be it by one lab or by two that start at the same time.

    Raises:
        ProcessError: there are not enough free ports.
    """
    claims = Path(tempfile.gettempdir()) / f"perllm-ports-{os.getuid()}"
    claims.mkdir(exist_ok=True)
    end = _read_first_ephemeral_port()
    candidates = list(range(_FIRST_PORT, end))
    random.SystemRandom().shuffle(candidates)
    found = list(islice((port for port in candidates if _is_free(port) and _claim(claims / str(port))), count))
    if len(found) == count:
        return found
    raise ProcessError(f"{count} free TCP ports were not found between {_FIRST_PORT} and {end}")


def _claim(file: Path) -> bool:
    """Return whether the port of this file was still to be claimed."""
    with contextlib.suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime < CLAIM_S:
            return False
        file.unlink()
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port with nothing but connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _read_first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _DEFAULT_FIRST_EPHEMERAL_PORT
