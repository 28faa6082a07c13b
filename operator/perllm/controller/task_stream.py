"""Validates and reduces what Kopf reads about tasks before Kopf sees it.

Kopf stops for good at an error event, at text that is not JSON and at an object that is nested too deeply, and does not
report deletions that happened while it was disconnected. So it uses an HTTP session of ours, and what the API server
sends is read here first. A malformed event becomes "410 Gone", after which Kopf lists and watches from the start; what
is nested too deeply is left out.

Kopf needs a worker, a queue and half a millisecond for each object. So lists are passed on from here, page by page, and
Kopf gets empty ones. Of an event that brings nothing new but our own status, or the report of an agent, which is passed
on from here too, Kopf only gets the version.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import aiohttp
import orjson
from yarl import URL

from perllm.api import names
from perllm.backoff import Backoff
from perllm.cluster.client import Object, split_lines
from perllm.cluster.credentials import Credentials
from perllm.cluster.decoding import UndecodableError, decode, prune
from perllm.cluster.informer import object_key
from perllm.cluster.outages import Outages
from perllm.cluster.pod import MAX_ATTEMPT
from perllm.cluster.shapes import as_object
from perllm.cluster.sockets import open_socket
from perllm.controller.handover import Handover
from perllm.guard import describe
from perllm.text import clean_line, error_line

TOPIC = "watch of tasks"
RETRY = Backoff(first_s=0.1, limit_s=15.0)
MAX_CONNECTIONS = 16
GONE_CODE = 410
GONE = orjson.dumps({"type": "ERROR", "object": {"kind": "Status", "code": GONE_CODE, "message": "list again"}})

REOPENED_S = 2.0
"""The API server ends every watch after a while; it counts as open for this time longer, until the next one is."""

OnTask = Callable[[Object, bool], None]
"""Called with (task, deleted)."""

IsKnown = Callable[[Object], bool]
"""Called in the thread of Kopf with a task; returns whether its status is as the operator has written it."""

OnList = Callable[[str | None, Mapping[str, str]], None]
"""Called with (namespace or None for all, uid of every task there by namespace/name) after the tasks of a list."""

Generation = int
"""Changes with everything about a task that is not the operator's own status."""


class _MalformedError(Exception):
    """A line of a watch that cannot be passed on to Kopf."""


class TaskStream:
    """The lists and watches of one run of Kopf.

    Args:
        on_task: called, by way of `handover`, with every task that is new or has changed.
        on_list: called, by way of `handover`, at the end of every list.
        handover: to the event loop of the controller.
        outages: is notified of failures.
        rng: for the jitter of pauses.
        is_known: says whether the status of a task is the operator's own.
        watches: how many there are: one for all namespaces, or one for each.

    Attributes:
        pages: how many pages of lists were read.
        watches: how many watches there are to be.
    """

    def __init__(
        self,
        on_task: OnTask,
        on_list: OnList,
        handover: Handover,
        outages: Outages,
        rng: Random,
        *,
        is_known: IsKnown,
        watches: int = 1,
    ) -> None:
        self.pages = 0
        self._on_task = on_task
        self._on_list = on_list
        self._handover = handover
        self._is_known = is_known
        self._outages = outages
        self._rng = rng
        self.watches = watches
        self._failures: Counter[str] = Counter()
        self._listing: dict[str, dict[str, str]] = {}
        self._generations: dict[str, dict[str, Generation]] = {}
        self._open: Counter[str] = Counter()
        self._open_since_s: dict[str, float] = {}
        self._listed: set[str] = set()
        self._known: set[str] = set()

    @property
    def is_current(self) -> bool:
        """Whether the controller has received all tasks, and their changes are watched."""
        return sum(self._open[path] > 0 for path in tuple(self._known)) >= self.watches

    def knows(self, namespace: str) -> bool:
        """Whether the controller has received all tasks of a namespace, and their changes are watched."""
        return self.find_since_s(namespace) is not None

    def find_since_s(self, namespace: str) -> float | None:
        """Return the time of a loop since which all that is watched without a break; None if it is not watched now."""
        places = None, namespace
        known = (path for path in tuple(self._known) if _read_namespace(path) in places)
        return min((self._open_since_s[path] for path in known if self._open[path] > 0), default=None)

    @property
    def watched(self) -> int:
        """How many watches are open; for the namespaces of the others, rights may be missing."""
        return sum(self._open[path] > 0 for path in self._listed)

    def build_session(self, credentials: Credentials) -> aiohttp.ClientSession:
        """Return the session that Kopf is to use; Kopf closes it."""
        trace = aiohttp.TraceConfig()
        trace.on_request_exception.append(self._note_failure)
        trace.on_request_end.append(self._note_answer)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, ssl=credentials.ssl_context() or True, socket_factory=open_socket
            ),
            headers=credentials.headers(),
            response_class=_build_response_class(self),
            trace_configs=[trace],
        )

    def hand_on(self, item: Object, deleted: bool) -> None:
        """Hand a task on to the controller."""
        self._handover.put(partial(self._on_task, item, deleted))

    async def read_page(self, url: URL, content: bytes) -> Object:
        """Return a page of a list; one of tasks is handed on, and returned without them.

        Raises:
            aiohttp.ClientPayloadError: it is not a page of a list; Kopf asks again.
        """
        path = url.path
        try:
            page = decode(content)
            if not path.endswith(f"/{names.TASK_PLURAL}"):
                return page
            found = {object_key(item): str(item["metadata"]["uid"]) for item in page["items"]}
            is_last = not page["metadata"].get("continue")
        except (UndecodableError, KeyError, TypeError, AttributeError) as error:
            self._outages.failed(_find_topic(path), f"the list cannot be read: {describe(error)}")
            raise aiohttp.ClientPayloadError(describe(error)) from error
        self.pages += 1
        if "continue" not in url.query:
            self._listing[path] = {}  # what was read of a list that was given up does not count
        self._listing[path].update(found)
        for item in page.pop("items"):
            self._note_generation(path, item)
            self.hand_on(item, False)
        if is_last:
            self._end_list(path, self._listing.pop(path))
        await self._handover.wait_for_room()
        return {**page, "items": []}

    async def read_events(self, path: str, stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """Yield the lines of a watch in a form that Kopf can process."""
        if not self._open[path]:
            self._open_since_s[path] = asyncio.get_running_loop().time()
        self._open[path] += 1
        closed_in_s = 0.0
        try:
            async for line in split_lines(stream):
                yield await self._check(path, line)
                await self._handover.wait_for_room()
            closed_in_s = REOPENED_S
        finally:
            asyncio.get_running_loop().call_later(closed_in_s, self._open.subtract, (path,))

    def _end_list(self, path: str, uids: Mapping[str, str]) -> None:
        present, known = set(uids.values()), self._generations.get(path, {})
        self._generations[path] = {uid: generation for uid, generation in known.items() if uid in present}
        self._listed.add(path)
        self._handover.put(partial(self._on_list, _read_namespace(path), uids))
        self._handover.put(partial(self._known.add, path))

    def _note_generation(self, path: str, item: Object) -> bool:
        """Note the generation of a task; return whether it is new."""
        generations, uid = self._generations.setdefault(path, {}), item["metadata"]["uid"]
        before, generations[uid] = generations.get(uid), _read_generation(item)
        return before != generations[uid]

    async def _check(self, path: str, line: bytes) -> bytes:
        """Return the line of an event or, after a pause that grows, the order to list again."""
        topic = _find_topic(path)
        try:
            event = _read_event(line)
        except _MalformedError as error:
            self._known.discard(path)
            self._failures[topic] += 1
            self._outages.failed(topic, str(error))
            await asyncio.sleep(RETRY.pause_s(self._failures[topic], self._rng))
            return GONE + b"\n"
        del self._failures[topic]
        self._note_success(topic)
        return (prune(line) if self._is_news(path, event) else _keep_version(event)) + b"\n"

    def _is_news(self, path: str, event: Object) -> bool:
        """Whether an event is more to Kopf than our own status coming back, as most are, or the report of an agent."""
        kind, item = event["type"], event["object"]
        if kind in ("ADDED", "MODIFIED"):
            before = self._generations.get(path, {}).get(item["metadata"]["uid"])
            is_news = self._note_generation(path, item)
            if is_news and before is not None and _is_report(before, item):
                self.hand_on(item, False)
                return False
            return is_news or not self._is_known(item)
        if kind == "DELETED":
            self._generations[path].pop(item["metadata"]["uid"], None)
        elif kind == "ERROR":
            self._known.discard(path)
        return True

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


def _read_event(line: bytes) -> Object:
    """Return the event in a line.

    Raises:
        _MalformedError: it is none, or reports an error other than that the version is too old.
    """
    try:
        event = decode(line)
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") != GONE_CODE:
                raise _MalformedError(f"ended by the API server: {clean_line(item.get('message'))}")
        elif kind != "BOOKMARK" and not item["metadata"]["uid"]:
            raise _MalformedError(f"an object without a uid: {clean_line(event)}")
        elif not isinstance(item["metadata"]["resourceVersion"], str):
            raise _MalformedError(f"not an event: {clean_line(event)}")
    except (UndecodableError, KeyError, TypeError, AttributeError) as error:
        raise _MalformedError(f"not an event: {describe(error)}") from error
    return event


def _read_generation(item: Object) -> Generation:
    metadata, run = item["metadata"], as_object(as_object(item.get("status")).get("run"))
    generation = 2 * int(metadata.get("generation", 1)) + bool(metadata.get("deletionTimestamp"))
    return generation * (MAX_ATTEMPT + 1) + int(run.get("attempt", 0))


def _is_report(before: Generation, item: Object) -> bool:
    """Whether nothing but what an agent has reported is new about a task that had this generation."""
    return before // (MAX_ATTEMPT + 1) == _read_generation(item) // (MAX_ATTEMPT + 1)


def _keep_version(event: Object) -> bytes:
    """Return an event of which Kopf only takes the version."""
    version = event["object"]["metadata"]["resourceVersion"]
    return orjson.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}})


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
            return await tasks.read_page(self.url, content) if self.status == 200 else _read_error(content)

    return Response
