"""Which Prometheus to ask from where a person is, and how."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import load_credentials
from perllm.cluster.shapes import as_object, as_text
from perllm.config import load_config
from perllm.settings_file import ConfigError
from perllm.telemetry.series import Series, SeriesError, read_result
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.source import PrometheusSource, TelemetryError
from perllm.text import clean_line
from perllm.yaml_text import YamlError, read_yaml

TIMEOUT_S = 60.0
"""A query for a month takes longer than those of the operator; with a longer telemetry.timeout_s that counts."""

CONFIG_KEY = "perllm.yaml"
_SERVICE = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)\.([a-z0-9]([-a-z0-9]*[a-z0-9])?)\.svc(\..*)?")


class RangeSource(Protocol):
    """A server that answers PromQL for a time range."""

    async def query_range(self, promql: str, start_s: int, end_s: int, step_s: int) -> Sequence[Series]:
        """Return the values of a query at Unix times from ``start_s`` to ``end_s``, ``step_s`` seconds apart.

        Raises:
            TelemetryError, ApiError: there is no usable answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusAccess:
    """Where to find Prometheus.

    Attributes:
        url: of Prometheus, as seen from here; None for the configured one.
        config_file: configuration of the operator; None for that in the cluster.
        kubeconfig: kubeconfig of the cluster; None for where kubectl would look, or the pod's account.
        context: context of the kubeconfig.
        namespace: namespace that PerLLM is installed in.
    """

    url: str | None = None
    config_file: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "perllm-system"


class ProxiedPrometheus:
    """A Prometheus that is a service of the cluster, reached through the API server's proxy.

    So a kubeconfig is enough, without a port-forward. The API server does not pass credentials on.
    """

    def __init__(self, client: Client, path: str, warn: Callable[[str], None]) -> None:
        self._client = client
        self._path = path
        self._warn = warn

    async def query_range(self, promql: str, start_s: int, end_s: int, step_s: int) -> Sequence[Series]:
        """Return the values of a query; see ``RangeSource``."""
        answer = await self._client.get(
            f"{self._path}/api/v1/query_range", query=promql, start=str(start_s), end=str(end_s), step=str(step_s)
        )
        pass_on_warnings(answer, self._warn)
        try:
            return read_result(as_object(answer.get("data")).get("result"))
        except SeriesError as error:
            raise TelemetryError(f"Prometheus at {self._path}: {error}") from error


def pass_on_warnings(answer: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Report that an answer may lack series.

    Thanos warns of a store that does not answer, VictoriaMetrics says isPartial.
    """
    listed = answer.get("warnings")
    for words in listed if isinstance(listed, list) else ():
        warn(clean_line(words))
    if answer.get("isPartial") is True:
        warn("the answer is partial")


@asynccontextmanager
async def open_prometheus(
    access: PrometheusAccess, warn: Callable[[str], None]
) -> AsyncIterator[tuple[RangeSource, TelemetrySettings]]:
    """Yield the Prometheus of a cluster and the settings of its queries; `warn` is called with its warnings.

    Raises:
        ConfigError: there is no configuration, or it is invalid.
        CredentialsError: the configuration is to be read from the cluster, and there are no credentials.
        ApiError: it cannot be read there.
    """
    if access.url is not None or access.config_file is not None:
        configured = load_config(access.config_file).telemetry
        settings = configured if access.url is None else configured.with_url(access.url)
        patient = settings.model_copy(update={"timeout_s": max(settings.timeout_s, TIMEOUT_S)})
        source = PrometheusSource(patient, _open_session(warn))
        try:
            yield source, settings
        finally:
            source.close()
        return
    credentials = load_credentials(access.kubeconfig, access.context)
    async with Client(credentials, timeout_s=TIMEOUT_S) as client:
        settings = await read_telemetry(client, access.namespace)
        path = find_proxy_path(settings.url)
        if path is None:
            raise ConfigError(f"{settings.url} is no service of the cluster: pass --prometheus, or --config")
        yield ProxiedPrometheus(client, path, warn), settings


def _open_session(warn: Callable[[str], None]) -> requests.Session:
    """Return a session that passes warnings on: the client library returns only the series of an answer."""

    def note(response: requests.Response, *_: object, **__: object) -> None:
        with suppress(ValueError):  # what is no JSON is reported by the library
            pass_on_warnings(as_object(response.json()), warn)

    session = requests.Session()
    session.hooks["response"].append(note)
    return session


async def read_telemetry(client: Client, namespace: str) -> TelemetrySettings:
    """Return where the operator that is installed in a namespace has its figures from.

    Raises:
        ConfigError: there is none, or more than one, or it is invalid.
        ApiError: config maps cannot be read.
    """
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    try:
        items = (await client.get(path)).get("items") or []
    except ApiError as error:
        raise ConfigError(f"config maps of {namespace} cannot be read ({error}): pass --prometheus") from error
    contents = [as_object(item.get("data")) for item in items]
    found = [as_text(content[CONFIG_KEY]) for content in contents if CONFIG_KEY in content]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found) or 'no'} config maps with {CONFIG_KEY} in {namespace}: pass --namespace, --config, or "
            "--prometheus"
        )
    try:
        return TelemetrySettings.model_validate(as_object(read_yaml(found[0])).get("telemetry") or {})
    except YamlError as error:
        raise ConfigError(f"{CONFIG_KEY} in {namespace} cannot be read ({error}): pass --prometheus") from error
    except ValueError as error:
        raise ConfigError(f"config.telemetry of {namespace} is not of this version: pass --prometheus") from error


def find_proxy_path(url: str) -> str | None:
    """Return the path of the API server that leads to a service of the cluster; None if the URL is not of one."""
    parts = urlsplit(url)
    found = _SERVICE.fullmatch(parts.hostname or "")
    if found is None:
        return None
    name, namespace = found[1], found[3]
    port = parts.port or (443 if parts.scheme == "https" else 80)
    service = f"{parts.scheme}:{name}:{port}"
    return f"/api/v1/namespaces/{namespace}/services/{service}/proxy{parts.path.rstrip('/')}"
