"""The operator's credentials. The official Kubernetes client reads kubeconfigs and service accounts."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubernetes import client, config
from yaml import YAMLError


class CredentialsError(Exception):
    """No usable credentials were found."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The address of an API server and the identity to use there.

    Attributes:
        server: base URL without a trailing slash.
        ca_file: certificate authority of the server; None for the system's.
        certificate_file: client certificate, if the identity is one.
        key_file: private key of the client certificate.
        token: returns the current bearer token; called for every request, because service-account tokens rotate.
        proxy: URL of the HTTP proxy in between, if the kubeconfig names one.
        server_name: name in the certificate of the server, if it differs from that in the URL.
    """

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: Callable[[], str | None]
    proxy: str | None = None
    server_name: str | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a TLS context that verifies the server; None for plain HTTP."""
        if self.server.startswith("http://"):
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def headers(self) -> dict[str, str]:
        """Return the authorization header; none if the identity is a certificate."""
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}


def load_credentials(kubeconfig: Path | None = None, context: str | None = None) -> Credentials:
    """Load credentials from `kubeconfig`, from where kubectl would look, or from the pod's service account.

    Raises:
        CredentialsError: no usable credentials were found; the message says where they were looked for.
    """
    configuration = client.Configuration(proxy="")  # that of the environment is not used
    try:
        _load(kubeconfig, context, configuration)
    except (config.ConfigException, OSError, TypeError, YAMLError) as error:
        sought = kubeconfig or "$KUBECONFIG, ~/.kube/config or the pod's service account"
        raise CredentialsError(f"no Kubernetes credentials in {sought}: {error}. Pass --kubeconfig FILE.") from error
    if not configuration.verify_ssl:
        raise CredentialsError("the kubeconfig disables TLS verification; add certificate-authority-data instead")
    if configuration.proxy and not configuration.proxy.startswith(("http://", "https://")):
        raise CredentialsError(f"the proxy-url of the kubeconfig, {configuration.proxy}, is not that of an HTTP proxy")
    return Credentials(
        server=configuration.host.rstrip("/"),
        ca_file=configuration.ssl_ca_cert,
        certificate_file=configuration.cert_file,
        key_file=configuration.key_file,
        token=lambda: _bearer_token(configuration),
        proxy=configuration.proxy or None,
        server_name=configuration.tls_server_name,
    )


def load_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str | None:
    """Return the namespace of the context, as kubectl does; None if it names none, or there is no kubeconfig.

    Raises:
        CredentialsError: the kubeconfig cannot be read, or has no such context.
    """
    try:
        contexts, current = config.list_kube_config_contexts(config_file=str(kubeconfig) if kubeconfig else None)
    except (config.ConfigException, OSError, TypeError, YAMLError) as error:
        if kubeconfig or context:
            raise CredentialsError(f"no contexts in {kubeconfig or 'the kubeconfig'}: {error}") from error
        return None
    chosen = next((one for one in contexts if one["name"] == context), None) if context else current
    if chosen is None:
        raise CredentialsError(f"the kubeconfig has no context {context!r}")
    return chosen["context"].get("namespace") or None


def _load(kubeconfig: Path | None, context: str | None, configuration: client.Configuration) -> None:
    file = str(kubeconfig) if kubeconfig else None
    try:
        config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    except config.ConfigException:
        if kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        config.load_incluster_config(client_configuration=configuration)


def _bearer_token(configuration: client.Configuration) -> str | None:
    value = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    # The official client writes "Bearer" before some tokens, "bearer" before others.
    return value.split()[-1] if value else None
