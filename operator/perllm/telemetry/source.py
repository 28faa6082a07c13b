"""Prometheus' query API as a source of samples."""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from perllm.telemetry.settings import TelemetrySettings

Samples = tuple[tuple[float, float], ...]

_MAX_DETAIL_LENGTH = 300


class TelemetryError(Exception):
    """A query got no usable answer; the message says what to check."""


class TelemetryUnreachableError(TelemetryError):
    """Nothing answers, so no other query will be answered now either."""


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one series.

    Attributes:
        labels: Its labels, ``__name__`` included.
        samples: Pairs of seconds since the epoch and value, in the order of time; all finite.
    """

    labels: Mapping[str, str]
    samples: Samples


class MetricSource(Protocol):
    """Whatever answers PromQL."""

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series that an instant query with a range selector finds.

        Raises:
            TelemetryError: there is no usable answer.
        """
        ...


class PrometheusSource:
    """Asks a Prometheus server, in a thread of its own so that a slow answer holds up nothing else."""

    def __init__(self, settings: TelemetrySettings, session: requests.Session) -> None:
        session.verify = True if settings.ca_file is None else str(settings.ca_file)
        # Logged, so without a user and his password.
        self._url = re.sub("//[^/@]*@", "//", settings.url)
        self._connection = PrometheusConnect(
            url=settings.url.rstrip("/"),
            headers=dict(settings.headers),
            auth=_authorize_from(settings.token_file),
            # The poller waits and tries again by itself; retries in here would multiply the timeout.
            retry=Retry(0, read=False),
            timeout=settings.timeout_s,
            session=session,
        )
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="telemetry")

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series found; see ``MetricSource``."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._query, promql)

    def close(self) -> None:
        """Drop connections and thread; does not wait for an answer that is still due."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._connection.close()

    def _query(self, promql: str) -> tuple[Series, ...]:
        # The library lets the errors of everything below it through, and KeyErrors for answers it did not expect.
        try:
            result = self._connection.custom_query(promql)
            return tuple(_parse_series(entry) for entry in result)
        except requests.Timeout as error:
            what = "did not answer in time; check its load or raise telemetry.timeout_s"
            raise TelemetryUnreachableError(self._explain(what, error)) from error
        except requests.ConnectionError as error:
            what = "cannot be reached; check telemetry.url, its certificate and network policies"
            raise TelemetryUnreachableError(self._explain(what, error)) from error
        except Exception as error:
            what = f"gave no usable answer to {promql!r}; check telemetry.url, the token and the query"
            raise TelemetryError(self._explain(what, error)) from error

    def _explain(self, what: str, error: Exception) -> str:
        return f"Prometheus at {self._url} {what} ({type(error).__name__}: {str(error)[:_MAX_DETAIL_LENGTH]})"


def _authorize_from(token_file: Path | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    if token_file is None:
        return None

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        return request

    return authorize


def _parse_series(entry: Mapping[str, Any]) -> Series:
    pairs = ((float(time_s), float(value)) for time_s, value in entry["values"])
    return Series(entry["metric"], tuple(pair for pair in pairs if math.isfinite(pair[1])))
