"""Every change that the API server has made, with who asked for it and when: its own audit log."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import yaml

from perllm.api.names import GROUP
from perllm.cluster.client import Object

CHANGES = ("create", "update", "patch", "delete")
ROTATED_MIB = 100


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes something.

    Attributes:
        request: identity of the request.
        asked_s: Unix time at which it was received.
        user: who sent it.
        verb: create, update, patch or delete.
        kind: plural of the kind of object, followed by the subresource, such as "pods/status".
        key: namespace/name, or only the name; what is created has no name here.
        code: HTTP status; 0 if the API server ended before it answered.
        sent: body of the request, where it is recorded.
        stored: the object after the change, where it is recorded.
    """

    request: str
    asked_s: float
    user: str
    verb: str
    kind: str
    key: str
    code: int
    sent: Object
    stored: Object

    @property
    def may_be_made(self) -> bool:
        """Whether the change was made, or may have been: the API server or its client ended before it was answered."""
        return self.code < 300 or self.code >= 500


class AuditLog:
    """The audit log of one API server, in a folder of its own.

    Args:
        folder: is created.
        rules: of the audit policy.
    """

    def __init__(self, folder: Path, rules: Sequence[Object]) -> None:
        folder.mkdir(parents=True)
        self._policy = folder / "policy.yaml"
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [*rules, {"level": "None"}]}
        self._policy.write_text(yaml.safe_dump(policy))
        self._file = folder / "audit.jsonl"
        self._open: BinaryIO | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """What to add to the command line of kube-apiserver."""
        return (
            f"--audit-policy-file={self._policy}",
            f"--audit-log-path={self._file}",
            f"--audit-log-maxsize={ROTATED_MIB}",
            "--audit-log-maxbackup=1",
        )

    def read_new(self) -> Iterator[Change]:
        """Yield the changes since the last call; to be called before the log is rotated twice."""
        if self._open is None:
            if not self._file.exists():
                return
            self._open = self._file.open("rb")
        yield from self._read_rest(self._open)
        if self._file.stat().st_ino != Path(f"/proc/self/fd/{self._open.fileno()}").stat().st_ino:
            self._open.close()
            self._open = self._file.open("rb")
            yield from self._read_rest(self._open)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _read_rest(self, file: BinaryIO) -> Iterator[Change]:
        """Yield the complete lines that were not read before; a killed API server leaves half of one."""
        start = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break
            start += len(line)
            if (change := _parse(line)) is not None:
                yield change
        file.seek(start)


def record_all_changes() -> list[Object]:
    """Return rules that record all changes to pods, nodes and our own kinds, with the statuses of tasks and pods."""
    tasks, pods = {"group": GROUP, "resources": ["llminferencetasks", "llminferencetasks/status"]}, {"group": ""}
    return [
        # A deletion counts from when it is asked for: the API server may be killed before it answers.
        {"level": "Metadata", "verbs": ["delete"], "omitStages": [], "resources": [{"group": ""}, {"group": GROUP}]},
        _rule("RequestResponse", [tasks]),
        _rule("Request", [pods | {"resources": ["pods/status"]}]),
        _rule("Metadata", [pods | {"resources": ["pods", "pods/binding", "nodes"]}, {"group": GROUP}]),
    ]


def record_writes_of(*users: str) -> list[Object]:
    """Return a rule that records all changes of some users, without their content."""
    return [{"level": "Metadata", "users": list(users), "verbs": list(CHANGES), "omitStages": ["RequestReceived"]}]


def read_all(log: AuditLog) -> list[Change]:
    """Return all changes, each once, in the order in which they were asked for."""
    latest = {one.request: one for one in log.read_new()}
    return sorted(latest.values(), key=lambda one: one.asked_s)


def select(changes: Iterable[Change], kind: str, *verbs: str) -> list[Change]:
    """Return the changes of a kind by these verbs that were made, or may have been."""
    return [one for one in changes if one.kind == kind and one.verb in verbs and one.may_be_made]


def _rule(level: str, resources: list[Object]) -> Object:
    return {"level": level, "verbs": list(CHANGES), "omitStages": ["RequestReceived"], "resources": resources}


def _parse(line: bytes) -> Change | None:
    try:
        event: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None  # the end of one line and the start of another, of an API server that was killed and restarted
    about = event["objectRef"]
    return Change(
        request=event["auditID"],
        asked_s=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        user=event["user"]["username"],
        verb=event["verb"],
        kind="/".join(filter(None, (about["resource"], about.get("subresource")))),
        key="/".join(filter(None, (about.get("namespace"), about.get("name")))),
        code=(event.get("responseStatus") or {}).get("code", 0),
        sent=event.get("requestObject") or {},
        stored=event.get("responseObject") or {},
    )
