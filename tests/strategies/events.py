"""Lines of a watch that a real API server cannot be brought to send."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from strategies.values import JSON, NESTED, SCALARS, Oddities, encode

COLLECTIONS = ("llminferencetasks", "pods", "nodes")


class Ending(StrEnum):
    """What becomes of the watch after the line."""

    GO_ON = "goes on"
    CLOSE = "is closed"
    SILENCE = "is silent, then breaks"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A line in a watch of a collection."""

    collection: str
    line: bytes
    ending: Ending = Ending.GO_ON


def odd_events() -> Oddities:
    """Return what may come in a watch."""
    return {
        "an error": _lines(st.sampled_from([500, 410, 403, 0, -1]).map(_error)),
        "an odd error": _lines(JSON.map(lambda value: encode({"type": "ERROR", "object": value}))),
        "not JSON": _lines(st.sampled_from([b"<html>", b"{", b"\xff\xfe", b"\x00", b"NaN", b"x" * 300_000])),
        "any JSON": _lines(JSON.map(encode)),
        "an event of any type": _lines(st.builds(_event, SCALARS, st.just(_ghost()))),
        "an object of any type": _lines(st.builds(_event, st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), JSON)),
        "odd metadata": _lines(st.builds(_event, st.just("ADDED"), st.builds(_ghost, JSON))),
        "an odd bookmark": _lines(st.builds(_event, st.just("BOOKMARK"), JSON)),
        "deep": _lines(NESTED.map(lambda value: _event("ADDED", {**_ghost(), "spec": value}))),
        "cut": _lines(st.just(b'{"type":"ADDED","object":{"metadata":{"na')),
        "silence": st.sampled_from(COLLECTIONS).map(lambda name: WatchEvent(name, b"", Ending.SILENCE)),
    }


def _lines(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[WatchEvent]:
    endings = st.sampled_from([Ending.GO_ON, Ending.CLOSE])
    return st.builds(WatchEvent, st.sampled_from(COLLECTIONS), lines, endings)


def _event(kind: Any, item: Any) -> bytes:
    return encode({"type": kind, "object": item})


def _error(code: int) -> bytes:
    return _event(
        "ERROR", {"kind": "Status", "status": "Failure", "code": code, "message": "made up", "reason": "Test"}
    )


def _ghost(metadata: Any = None) -> dict[str, Any]:
    """Return an object that the API server does not have."""
    whole = {"name": "ghost", "namespace": "nowhere", "uid": "ghost", "resourceVersion": "1"}
    return {"metadata": whole if metadata is None else metadata, "spec": {}, "status": {}}
