"""A certificate authority for one run of the lab."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import trustme


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write `name.crt` and `name.key` and return their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        write_secret(key, self.key)
        return certificate, key


class Authority:
    """Issues the certificates of one control plane."""

    def __init__(self) -> None:
        # The API server checks the signature of a client's certificate at every request, and RSA is checked fastest.
        self._ca = trustme.CA(key_type=trustme.KeyType.RSA)

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM."""
        return self._ca.cert_pem.bytes()

    def write_certificate(self, file: Path) -> Path:
        """Write the authority's own certificate."""
        file.write_bytes(self.certificate)
        return file

    def issue_server(self, *hosts: str) -> KeyPair:
        """Issue a certificate for host names and addresses."""
        return _pair(self._ca.issue_cert(*hosts))

    def issue_client(self, user: str, group: str | None = None) -> KeyPair:
        """Issue a certificate for a Kubernetes user: the common name is the user, the organisation its group."""
        # Without an organisation the library writes its own name there, which Kubernetes would read as a group.
        # Every user that logs in belongs to this group anyway.
        organisation = group or "system:authenticated"
        return _pair(self._ca.issue_cert("client.invalid", common_name=user, organization_name=organisation))


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The address of a cluster, the authority to trust, and the credentials of a user."""

    server: str
    authority: bytes
    user: str
    pair: KeyPair

    @classmethod
    def issue(cls, server: str, authority: Authority, user: str, group: str | None) -> Self:
        """Make the kubeconfig of a user with a certificate of its own."""
        return cls(server, authority.certificate, user, authority.issue_client(user, group))

    def render(self) -> dict[str, Any]:
        """Render the content of a kubeconfig file; all certificates are inside, so the file can be moved."""
        cluster = {"server": self.server, "certificate-authority-data": _encode(self.authority)}
        user = {"client-certificate-data": _encode(self.pair.certificate), "client-key-data": _encode(self.pair.key)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": self.user}}],
            "current-context": "lab",
        }


def write_secret(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, and that no other user can have opened before."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(content)


def _pair(leaf: trustme.LeafCert) -> KeyPair:
    return KeyPair(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
