"""The proxy that the environment names for requests to a server, by the rules of kubectl."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


def find_proxy(server: str) -> str | None:
    """Return the URL of the HTTP proxy for a server; None if there is none.

    HTTPS_PROXY names it, HTTP_PROXY for a server without TLS. NO_PROXY lists hosts, domains and networks that need
    none, and this machine never needs one.

    Raises:
        ValueError: the URL of the server is not one.
    """
    parts, settings = urlsplit(server), getproxies_environment()
    proxy, host = settings.get(parts.scheme, ""), parts.hostname or ""
    address = _read_address(host)
    url = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy or not url.startswith(("http://", "https://")):
        return None
    if is_this_machine(host) or (address is not None and _is_in_any(address, settings.get("no", ""))):
        return None
    place = host if parts.port is None else f"{host}:{parts.port}"
    return None if proxy_bypass(place) else url


def is_this_machine(host: str) -> bool:
    """Whether a host is the machine that asks."""
    address = _read_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _is_in_any(address: IPv4Address | IPv6Address, networks: str) -> bool:
    return any(_is_in(address, one.strip()) for one in networks.split(","))


def _is_in(address: IPv4Address | IPv6Address, network: str) -> bool:
    try:
        return "/" in network and address in ip_network(network, strict=False)
    except ValueError:
        return False


def _read_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
