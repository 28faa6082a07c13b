"""Sockets that notice when the other side is gone: a node that loses power, or a cut link, ends no connection."""

import socket
from typing import Any

IDLE_S = 5
"""Silence after which the kernel asks whether the other side is still there, and repeats that."""

GONE_S = 15
"""After so long without an acknowledgement the connection is broken, idle or not."""


def open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a TCP socket for an address as `socket.getaddrinfo` describes it."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux has these options, and what runs in a cluster runs on Linux.
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", IDLE_S),
        ("TCP_KEEPCNT", GONE_S // IDLE_S - 1),
        ("TCP_USER_TIMEOUT", 1000 * GONE_S),
    ):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened
