"""The addresses of a real node in a network of its own."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

# Reserved for benchmarks by RFC 2544, so it is not in use on any real network.
_RANGE = IPv4Network("198.18.0.0/15")


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """A subnet: the lower half for pods, the top for the link between this machine and the node."""

    subnet: IPv4Network

    @property
    def pods(self) -> IPv4Network:
        """The addresses of pods."""
        return next(self.subnet.subnets())

    @property
    def link(self) -> IPv4Network:
        """The subnet of the link."""
        return list(self.subnet.subnets(new_prefix=30))[-1]

    @property
    def host(self) -> str:
        """The address of this machine, as pods see it."""
        return str(self.link.network_address + 1)

    @property
    def node(self) -> str:
        """The address of the node."""
        return str(self.link.network_address + 2)


def choose_network(in_use: Iterable[IPv4Address], rng: random.Random) -> NodeNetwork:
    """Choose a subnet that contains none of the addresses in use.

    Raises:
        LookupError: none is left.
    """
    taken = {IPv4Network((address, 24), strict=False) for address in in_use}
    free = [subnet for subnet in _RANGE.subnets(new_prefix=24) if subnet not in taken]
    if not free:
        raise LookupError(f"Every subnet of {_RANGE} is in use; stop some of these tests.")
    return NodeNetwork(rng.choice(free))
