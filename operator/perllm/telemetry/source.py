"""The query API of Prometheus as a source of samples."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from requests.auth import HTTPBasicAuth

from perllm.cluster.proxies import is_this_machine
from perllm.telemetry.series import Series, SeriesError, read_result
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.transport import AnswerTooLargeError, BreakableAdapter
from perllm.text import clean_line, hide_credentials

MAX_ANSWER = 64 * 2**20
"""Bytes of one answer. 15 minutes of 10,000 GPUs, scraped every 15 s, take half as many."""

MAX_DETAIL = 300

# These statuses mean that the query is wrong, so others may still be answered.
_ABOUT_QUERY = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class TelemetryError(Exception):
    """A query got no usable answer; the message says what to check."""


class TelemetryUnreachableError(TelemetryError):
    """Prometheus has not answered, and may not answer other queries now either."""


class MetricSource(Protocol):
    """A server that answers PromQL."""

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series that an instant query with a range selector finds; unusable ones have a fault.

        Raises:
            TelemetryError: there is no usable answer.
        """
        ...


class PrometheusSource:
    """Queries a Prometheus server in a thread of its own, so that a slow answer blocks nothing else.

    A query ends after ``timeout_s``, connecting and reading the whole answer included.
    """

    def __init__(self, settings: TelemetrySettings, session: requests.Session) -> None:
        # Proxies of the environment are for others: behind a port-forward, Prometheus is on this machine.
        session.trust_env = not is_this_machine(urlsplit(settings.url).hostname or "")
        session.verify = True if settings.ca_file is None else str(settings.ca_file)
        self._url = hide_credentials(settings.url)
        self._timeout_s = settings.timeout_s
        self._connection = PrometheusConnect(
            url=settings.url.rstrip("/"),
            headers=dict(settings.headers),
            auth=_authorize_from(settings),
            timeout=settings.timeout_s,
            session=session,
        )
        self._adapter = BreakableAdapter(MAX_ANSWER)
        # Mounted after the library's own adapter, to replace it; the other prefixes are for redirects.
        for prefix in (settings.url.rstrip("/"), "http://", "https://"):
            session.mount(prefix, self._adapter)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="telemetry")

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series found; see ``MetricSource``."""
        return await self._run(promql, partial(self._connection.custom_query, promql))

    async def query_range(self, promql: str, start_s: int, end_s: int, step_s: int) -> Sequence[Series]:
        """Return the values of a query at Unix times from ``start_s`` to ``end_s``, ``step_s`` seconds apart.

        Raises:
            TelemetryError: there is no usable answer.
        """
        start, end = datetime.fromtimestamp(start_s, UTC), datetime.fromtimestamp(end_s, UTC)
        return await self._run(promql, partial(self._connection.custom_query_range, promql, start, end, str(step_s)))

    async def _run(self, promql: str, ask: Callable[[], Any]) -> Sequence[Series]:
        asked = asyncio.get_running_loop().run_in_executor(self._executor, self._ask, promql, ask)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asked
        except TimeoutError as error:
            self._adapter.break_off()
            raise TelemetryUnreachableError(self._explain(_TOO_SLOW, error)) from error

    def close(self) -> None:
        """Close connections and thread, and abort a query that is in progress."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._adapter.break_off()
        self._connection.close()

    def _ask(self, promql: str, ask: Callable[[], Any]) -> tuple[Series, ...]:
        # The library lets errors of the layers below it through, and raises others for answers it did not expect.
        try:
            return read_result(ask())
        except SeriesError as error:
            raise TelemetryError(f"{promql!r}: {error}") from error
        except requests.Timeout as error:
            raise TelemetryUnreachableError(self._explain(_TOO_SLOW, error)) from error
        except requests.ConnectionError as error:
            raise TelemetryUnreachableError(self._explain(_NOT_THERE, error)) from error
        except AnswerTooLargeError as error:
            raise TelemetryError(self._explain(f"returned too much data for {promql!r}; narrow it", error)) from error
        except PrometheusApiClientException as error:
            raise self._explain_status(promql, error) from error
        except requests.JSONDecodeError as error:
            raise TelemetryUnreachableError(self._explain(_NO_JSON, error)) from error
        except Exception as error:
            what = f"returned no usable answer to {promql!r}; check telemetry.url, the token and the query"
            raise TelemetryError(self._explain(what, error)) from error

    def _explain_status(self, promql: str, error: Exception) -> TelemetryError:
        found = re.match(r"HTTP Status Code (\d+)", str(error))
        status = int(found.group(1)) if found else 0
        if status in _ABOUT_QUERY:
            return TelemetryError(self._explain(f"rejects the query {promql!r}; correct it", error))
        return TelemetryUnreachableError(self._explain(_REFUSED, error))

    def _explain(self, what: str, error: Exception) -> str:
        detail = clean_line(hide_credentials(f"{type(error).__name__}: {error}"), MAX_DETAIL)
        return f"Prometheus at {self._url} {what} ({detail})"


_TOO_SLOW = "did not answer in time; check its load or raise telemetry.timeout_s"
_NOT_THERE = "cannot be reached; check telemetry.url, its certificate and network policies"
_NO_JSON = (
    "answers with something other than JSON, such as the page of a sign-in proxy; check telemetry.url and the token"
)
_REFUSED = "refuses to answer; check telemetry.url, its path, the token and the server's load"


def _authorize_from(
    settings: TelemetrySettings,
) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    if settings.token_file is None and settings.password_file is None:
        return None

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if settings.password_file is not None:
            password = settings.password_file.read_text("utf-8").strip()
            return HTTPBasicAuth(settings.username.encode(), password.encode())(request)
        if settings.token_file is not None:
            request.headers["Authorization"] = f"Bearer {_read_token(settings.token_file)}"
        return request

    return authorize


def _read_token(file: Path) -> str:
    """Return the token in a file.

    Raises:
        ValueError: it cannot be sent. The error of the library would quote it.
    """
    token = file.read_text("utf-8").strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError(f"{file} must contain a token and nothing else, on one line")
    return token
