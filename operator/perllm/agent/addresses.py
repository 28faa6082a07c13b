"""Where model servers are. Addresses come from the platform: its configuration, and pods that it labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from perllm.agent.config import ModelServerSettings
from perllm.settings_file import ConfigError


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address of a model server.

    Attributes:
        url: base URL up to the version, for example http://10.0.0.7:8000/v1.
        api_key: key of the server; empty if it has none. Never shown.
        slots: how many requests it processes at a time, if that is configured.
        is_in_pod: whether it is in a pod of this node, so that it is there; one that is configured need not be.
    """

    url: str
    api_key: str = field(default="", repr=False)
    slots: int | None = None
    is_in_pod: bool = False

    @property
    def root(self) -> str:
        """The URL without the version, where engines have their other endpoints."""
        return self.url.rpartition("/")[0]


def read_addresses(servers: Sequence[ModelServerSettings]) -> tuple[ServerAddress, ...]:
    """Return the configured addresses, with their keys.

    Raises:
        ConfigError: a key cannot be read, or cannot be sent.
    """
    return tuple(ServerAddress(one.url, _read_key(one), one.slots) for one in servers)


def _read_key(server: ModelServerSettings) -> str:
    if server.api_key_file is None:
        return ""
    try:
        key = server.api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key of {server.url} cannot be read: {error}") from error
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key of {server.url} contains characters that are not allowed in an HTTP header")
    return key
