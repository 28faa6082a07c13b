"""Prometheus' query API as a source of samples."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import requests
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect

from perllm.telemetry.series import Series, SeriesError, read_result
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.transport import AnswerTooLargeError, BreakableAdapter
from perllm.text import clean_line

MAX_ANSWER = 64 * 2**20
"""Bytes of one answer: 15 minutes of 10,000 GPUs, scraped every 15 s, have half as many."""

MAX_DETAIL = 300

# A query can be wrong in itself, so that others may be answered.
_ABOUT_QUERY = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class TelemetryError(Exception):
    """A query got no usable answer; the message says what to check."""


class TelemetryUnreachableError(TelemetryError):
    """No Prometheus answers there, so no other query will be answered now either."""


class MetricSource(Protocol):
    """Whatever answers PromQL."""

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series that an instant query with a range selector finds; those that cannot be used say why.

        Raises:
            TelemetryError: there is no usable answer.
        """
        ...


class PrometheusSource:
    """Asks a Prometheus server, in a thread of its own so that a slow answer holds up nothing else.

    A query ends after ``timeout_s``, with its connection, its answer and all, however slowly bytes come.
    """

    def __init__(self, settings: TelemetrySettings, session: requests.Session) -> None:
        session.verify = True if settings.ca_file is None else str(settings.ca_file)
        self._url = hide_credentials(settings.url)
        self._timeout_s = settings.timeout_s
        self._connection = PrometheusConnect(
            url=settings.url.rstrip("/"),
            headers=dict(settings.headers),
            auth=_authorize_from(settings.token_file),
            timeout=settings.timeout_s,
            session=session,
        )
        self._adapter = BreakableAdapter(MAX_ANSWER)
        # After the library's own, in place of it; redirects lead elsewhere.
        for prefix in (settings.url.rstrip("/"), "http://", "https://"):
            session.mount(prefix, self._adapter)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="telemetry")

    async def query(self, promql: str) -> Sequence[Series]:
        """Return the series found; see ``MetricSource``."""
        asked = asyncio.get_running_loop().run_in_executor(self._executor, self._query, promql)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asked
        except TimeoutError as error:
            self._adapter.break_off()
            raise TelemetryUnreachableError(self._explain(_TOO_SLOW, error)) from error

    def close(self) -> None:
        """Drop connections and thread; breaks off an answer that is still due."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._adapter.break_off()
        self._connection.close()

    def _query(self, promql: str) -> tuple[Series, ...]:
        # The library lets the errors of everything below it through, and others for answers it did not expect.
        try:
            return read_result(self._connection.custom_query(promql))
        except SeriesError as error:
            raise TelemetryError(f"{promql!r}: {error}") from error
        except requests.Timeout as error:
            raise TelemetryUnreachableError(self._explain(_TOO_SLOW, error)) from error
        except requests.ConnectionError as error:
            raise TelemetryUnreachableError(self._explain(_NOT_THERE, error)) from error
        except AnswerTooLargeError as error:
            raise TelemetryError(self._explain(f"gave too long an answer to {promql!r}; narrow it", error)) from error
        except PrometheusApiClientException as error:
            raise self._explain_status(promql, error) from error
        except requests.JSONDecodeError as error:
            raise TelemetryUnreachableError(self._explain(_NO_JSON, error)) from error
        except Exception as error:
            what = f"gave no usable answer to {promql!r}; check telemetry.url, the token and the query"
            raise TelemetryError(self._explain(what, error)) from error

    def _explain_status(self, promql: str, error: Exception) -> TelemetryError:
        found = re.match(r"HTTP Status Code (\d+)", str(error))
        status = int(found.group(1)) if found else 0
        if status in _ABOUT_QUERY:
            return TelemetryError(self._explain(f"refuses the query {promql!r}; correct it", error))
        return TelemetryUnreachableError(self._explain(_REFUSED, error))

    def _explain(self, what: str, error: Exception) -> str:
        detail = clean_line(hide_credentials(f"{type(error).__name__}: {error}"), MAX_DETAIL)
        return f"Prometheus at {self._url} {what} ({detail})"


_TOO_SLOW = "did not answer in time; check its load or raise telemetry.timeout_s"
_NOT_THERE = "cannot be reached; check telemetry.url, its certificate and network policies"
_NO_JSON = (
    "answers with something else than JSON, such as the page of a sign-in proxy; check telemetry.url and the token"
)
_REFUSED = "refuses to answer; check telemetry.url, its path, the token and the server's load"


def hide_credentials(text: str) -> str:
    """Return a text without the user and the password of a URL in it; passwords may hold an @ themselves."""
    return re.sub(r"//[^\s'\"]*@", "//", text)


def _authorize_from(token_file: Path | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    if token_file is None:
        return None

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        return request

    return authorize
