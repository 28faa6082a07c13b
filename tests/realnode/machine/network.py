"""Addresses of a machine in a network of its own."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

# Set apart for test setups by RFC 2544; nothing in the world has such an address.
_RANGE = IPv4Network("198.18.0.0/15")


@dataclass(frozen=True, slots=True)
class MachineNetwork:
    """A subnet: the lower half is for pods, the top for the link between this computer and the machine."""

    subnet: IPv4Network

    @property
    def pods(self) -> IPv4Network:
        """Addresses of pods."""
        return next(self.subnet.subnets())

    @property
    def link(self) -> IPv4Network:
        """The link's own subnet."""
        return list(self.subnet.subnets(new_prefix=30))[-1]

    @property
    def host(self) -> str:
        """This computer's address, as pods see it."""
        return str(self.link.network_address + 1)

    @property
    def machine(self) -> str:
        """The machine's address."""
        return str(self.link.network_address + 2)


def choose_network(in_use: Iterable[IPv4Address], rng: random.Random) -> MachineNetwork:
    """Chooses a subnet that holds none of the addresses in use.

    Raises:
        LookupError: There is none left.
    """
    taken = tuple(in_use)
    subnets = list(_RANGE.subnets(new_prefix=24))
    rng.shuffle(subnets)
    for subnet in subnets:
        if not any(address in subnet for address in taken):
            return MachineNetwork(subnet)
    raise LookupError(f"Every subnet of {_RANGE} is in use; end some labs.")
