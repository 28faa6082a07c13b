"""The operator's credentials. The official Kubernetes client reads kubeconfigs and service accounts."""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.config import kube_config
from yaml import YAMLError

from perllm.cluster.proxies import find_proxy
from perllm.cluster.shapes import as_object, as_objects, as_text
from perllm.text import hide_credentials
from perllm.yaml_text import read_yaml

_QUOTED = re.compile(r"\{.*\}|\n[^\n]*\n *\^", re.DOTALL)
"""What messages quote of a kubeconfig, with its tokens and keys: whole entries, and lines that are no YAML."""


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
        proxy: URL of the HTTP proxy in between, if the kubeconfig or, outside of pods, the environment names one.
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
    configuration = client.Configuration(proxy="")  # that of the environment has rules of its own
    try:
        is_inside = _load(kubeconfig, context, configuration)
        proxy = configuration.proxy or (None if is_inside else find_proxy(configuration.host))
    except (config.ConfigException, OSError, TypeError, AttributeError, ValueError, YAMLError) as error:
        sought = kubeconfig or "$KUBECONFIG, ~/.kube/config or the pod's service account"
        words = f"no Kubernetes credentials in {sought}: {_explain(error)}. Pass --kubeconfig FILE."
        raise CredentialsError(words) from error
    if not configuration.verify_ssl:
        raise CredentialsError("the kubeconfig disables TLS verification; add certificate-authority-data instead")
    if configuration.proxy and not configuration.proxy.startswith(("http://", "https://")):
        shown = hide_credentials(configuration.proxy)
        raise CredentialsError(f"the proxy-url of the kubeconfig, {shown}, is not that of an HTTP proxy")
    return Credentials(
        server=configuration.host.rstrip("/"),
        ca_file=configuration.ssl_ca_cert,
        certificate_file=configuration.cert_file,
        key_file=configuration.key_file,
        token=lambda: _bearer_token(configuration),
        proxy=proxy,
        server_name=configuration.tls_server_name,
    )


def load_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str | None:
    """Return the namespace of the context, as kubectl does; None if it names none, or there is no kubeconfig.

    Raises:
        CredentialsError: the kubeconfig cannot be read, or has no such context.
    """
    try:
        found = _read_kubeconfigs(kubeconfig)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"no contexts in {kubeconfig or 'the kubeconfig'}: {_explain(error)}") from error
    name = context or _find_current_context(found)
    contexts = {as_text(one.get("name")): one.get("context") for one in reversed(_list_contexts(found))}
    if name not in contexts:
        if kubeconfig or context:
            what = f"context {name!r}" if name else "current context: pass --context"
            raise CredentialsError(f"the kubeconfig has no {what}")
        return None
    return as_text(as_object(contexts[name]).get("namespace")) or None


def _load(kubeconfig: Path | None, context: str | None, configuration: client.Configuration) -> bool:
    """Load the credentials; return whether they are those of the pod."""
    file = str(kubeconfig) if kubeconfig else None
    chosen = context
    if not context and len(_list_kubeconfigs(kubeconfig)) > 1:
        # Of several current contexts the official client takes the last one, kubectl the first.
        chosen = _find_current_context(_read_kubeconfigs(kubeconfig))
    try:
        config.load_kube_config(config_file=file, context=chosen or None, client_configuration=configuration)
    except config.ConfigException:
        if kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        config.load_incluster_config(client_configuration=configuration)
        return True
    return False


def _explain(error: Exception) -> str:
    return _QUOTED.sub("...", str(error))


def _list_kubeconfigs(kubeconfig: Path | None) -> list[Path]:
    """Return the files that kubectl would read; of what several of them say, the first one counts."""
    if kubeconfig is not None:
        return [kubeconfig]
    files = (Path(name).expanduser() for name in kube_config.KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if name)
    return [file for file in files if file.exists()]


def _read_kubeconfigs(kubeconfig: Path | None) -> list[dict[str, Any]]:
    return [as_object(read_yaml(file.read_text("utf-8"))) for file in _list_kubeconfigs(kubeconfig)]


def _find_current_context(kubeconfigs: list[dict[str, Any]]) -> str:
    names = (as_text(one.get("current-context")) for one in kubeconfigs)
    return next(filter(None, names), "")


def _list_contexts(kubeconfigs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [context for one in kubeconfigs for context in as_objects(one.get("contexts"))]


def _bearer_token(configuration: client.Configuration) -> str | None:
    value = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    # The official client writes "Bearer" before some tokens, "bearer" before others.
    return value.split()[-1] if value else None
