"""Makes what Kopf reads about tasks safe before Kopf sees it.

Kopf ends for good at an error event, at text that is not JSON and at an object that is nested too deeply, and does not
report deletions that happened while it was disconnected. So it uses an HTTP session of ours, and what the API server
sends is read here first. A malformed event becomes "410 Gone", after which Kopf lists and watches from the start; what
is nested too deeply is left out; and every complete list is passed on, so that missing tasks are known to be gone.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random
from typing import Any

import aiohttp
import orjson

from perllm.api import names
from perllm.backoff import Backoff
from perllm.cluster.client import Object, split_lines
from perllm.cluster.credentials import Credentials
from perllm.cluster.decoding import UndecodableError, decode, prune
from perllm.cluster.informer import object_key
from perllm.cluster.outages import Outages
from perllm.guard import describe
from perllm.text import clean_line, error_line

TOPIC = "watch of tasks"
RETRY = Backoff(first_s=0.1, limit_s=15.0)
MAX_CONNECTIONS = 16
GONE = orjson.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "list again"}})

OnList = Callable[[str | None, Mapping[str, str]], None]
"""Called with (namespace or None for all, uid by namespace/name) when a list of tasks was read to its end."""


class TaskStream:
    """The lists and watches of one run of Kopf.

    Args:
        on_list: called with every complete list, before anything that follows it.
        outages: is notified of failures.
        rng: for the jitter of pauses.
        watches: how many there are: one for all namespaces, or one for each.
    """

    def __init__(self, on_list: OnList, outages: Outages, rng: Random, *, watches: int = 1) -> None:
        self._on_list = on_list
        self._outages = outages
        self._rng = rng
        self._watches = watches
        self._failures: Counter[str] = Counter()
        self._listing: dict[str, dict[str, str]] = {}
        self._awaited: set[str] = set()
        self._open = 0
        self._listed: set[str] = set()

    @property
    def is_current(self) -> bool:
        """Whether all tasks were listed and delivered, and their changes are watched."""
        return min(self._open, len(self._listed)) >= self._watches and not self._awaited

    @property
    def is_at_work(self) -> bool:
        """Whether that holds for some namespaces; for the others, rights may be missing."""
        return min(self._open, len(self._listed)) > 0 and not self._awaited

    def build_session(self, credentials: Credentials) -> aiohttp.ClientSession:
        """Return the session that Kopf is to use; Kopf closes it."""
        trace = aiohttp.TraceConfig()
        trace.on_request_exception.append(self._note_failure)
        trace.on_request_end.append(self._note_answer)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=credentials.ssl_context() or True),
            headers=credentials.headers(),
            response_class=_build_response_class(self),
            trace_configs=[trace],
        )

    def handed_on(self, uid: str) -> None:
        """Note that a task was delivered to its listener."""
        self._awaited.discard(uid)

    def read_page(self, path: str, content: bytes) -> Object:
        """Return a page of a list, and record what is in it.

        Raises:
            aiohttp.ClientPayloadError: it is not a page of a list; Kopf asks again.
        """
        try:
            page = decode(content)
            if not path.endswith(f"/{names.TASK_PLURAL}"):
                return page
            found = {object_key(item): str(item["metadata"]["uid"]) for item in page["items"]}
            is_last = not page["metadata"].get("continue")
        except (UndecodableError, KeyError, TypeError, AttributeError) as error:
            self._outages.failed(_find_topic(path), f"the list cannot be read: {describe(error)}")
            raise aiohttp.ClientPayloadError(describe(error)) from error
        listing = self._listing.setdefault(path, {})
        listing.update(found)
        self._awaited.update(found.values())
        if is_last:
            self._on_list(_read_namespace(path), self._listing.pop(path))
            self._listed.add(path)
        return page

    async def read_events(self, path: str, stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """Yield the lines of a watch in a form that Kopf can process."""
        self._open += 1
        try:
            async for line in split_lines(stream):
                yield await self._check(_find_topic(path), line)
        finally:
            self._open -= 1

    async def _check(self, topic: str, line: bytes) -> bytes:
        """Return the line of an event or, after a pause that grows, the order to list again."""
        problem = _find_problem(line)
        if not problem:
            del self._failures[topic]
            self._note_success(topic)
            return prune(line) + b"\n"
        self._failures[topic] += 1
        self._outages.failed(topic, problem)
        await asyncio.sleep(RETRY.pause_s(self._failures[topic], self._rng))
        return GONE + b"\n"

    async def _note_failure(self, _: Any, __: Any, request: aiohttp.TraceRequestExceptionParams) -> None:
        if not isinstance(request.exception, asyncio.CancelledError):
            self._outages.failed(TOPIC, error_line(request.exception), is_unanswered=True)

    async def _note_answer(self, _: Any, __: Any, request: aiohttp.TraceRequestEndParams) -> None:
        status, topic = request.response.status, _find_topic(request.url.path)
        if status >= 400:
            self._outages.failed(topic, f"the API server answers {status} {clean_line(request.response.reason)}")
        elif not self._failures[topic]:
            self._note_success(topic)

    def _note_success(self, topic: str) -> None:
        for one in {TOPIC, topic}:
            self._outages.worked(one)


def _find_topic(path: str) -> str:
    """Return the topic that failures of a path are logged under: each namespace fails separately."""
    namespace = _read_namespace(path)
    return f"{TOPIC} in namespace {namespace}" if namespace else TOPIC


def _find_problem(line: bytes) -> str:
    """Return why a line cannot be passed on to Kopf; empty if it can."""
    try:
        event = decode(line)
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            return "" if item.get("code") == 410 else f"ended by the API server: {clean_line(item.get('message'))}"
        if kind != "BOOKMARK" and not item["metadata"]["uid"]:
            return f"an object without a uid: {clean_line(event)}"
        return "" if isinstance(item["metadata"]["resourceVersion"], str) else f"not an event: {clean_line(event)}"
    except (UndecodableError, KeyError, TypeError, AttributeError) as error:
        return f"not an event: {describe(error)}"


def _read_namespace(path: str) -> str | None:
    return path.partition("/namespaces/")[2].partition("/")[0] or None


def _read_error(content: bytes) -> Object:
    """Return the content of an error response; that of a proxy may not be JSON."""
    try:
        return decode(content)
    except UndecodableError:
        return {}


class _Events:
    """The content of the response to a watch, as far as Kopf uses it."""

    def __init__(self, path: str, stream: aiohttp.StreamReader, tasks: TaskStream) -> None:
        self._path = path
        self._stream = stream
        self._tasks = tasks

    def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        return self._tasks.read_events(self._path, self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _build_response_class(tasks: TaskStream) -> type[aiohttp.ClientResponse]:
    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> "Response":
            await super().start(connection)
            if self.status == 200 and self.url.query.get("watch") == "true":
                self.content = _Events(self.url.path, self.content, tasks)  # type: ignore[assignment]
            return self

        async def json(self, **_: Any) -> Any:
            content = await self.read()
            return tasks.read_page(self.url.path, content) if self.status == 200 else _read_error(content)

    return Response
