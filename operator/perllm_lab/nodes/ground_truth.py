"""The ground truth, kept outside the cluster: a JSON line per pod or request, and each node's energy at the end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class PodTruth:
    """One run of a pod. Times are wall clock (RFC 3339, microseconds), durations wall seconds, joules true joules.

    `outcome` is Succeeded, Failed, Deleted (while on the node) or Lost (with the node). Stages that a pod never
    reached are null.
    """

    pod: str
    namespace: str
    task: str
    uid: str
    node: str
    tier: str
    gpu: str
    outcome: str
    created: str
    admitted: str
    started: str
    finished: str
    transfer_s: float | None
    inference_s: float | None
    prompt_tokens: int
    output_tokens: int
    input_bytes: int
    energy_j: float
    kind: str = "pod"


@dataclass(frozen=True, slots=True)
class RequestTruth:
    """One request to a model server. Times are wall clock (RFC 3339, microseconds), durations wall seconds.

    Attributes:
        request: its X-Request-Id; empty if it had none.
        task: the name in the mark of its prompt; empty if it had none.
        outcome: Succeeded, Aborted (its connection was closed) or Lost (with the server or the node).
        transfer_s: until its last byte arrived; null if not reached, as the following two.
        first_token_s: from its arrival to the end of its prefill.
        inference_s: from the begin of its prefill to its end.
        output_tokens: tokens it got.
        energy_j: its exact energy in joules.
    """

    request: str
    task: str
    node: str
    tier: str
    gpu: str
    outcome: str
    created: str
    finished: str
    transfer_s: float | None
    first_token_s: float | None
    inference_s: float | None
    prompt_tokens: int
    output_tokens: int
    input_bytes: int
    energy_j: float
    kind: str = "request"


@dataclass(frozen=True, slots=True)
class NodeTruth:
    """The totals of one node since the fleet started; `idle_energy_j` belongs to no pod or request."""

    tier: str
    gpu: str
    energy_j: float
    idle_energy_j: float
    received_bytes: float
    runs: int


class GroundTruth:
    """Appends to a file of JSON lines, or discards them without a path. A context manager."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("ab", buffering=0) if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def add_run(self, truth: PodTruth | RequestTruth) -> None:
        """Write the line of one pod or request, unbuffered, so that a crash loses nothing."""
        self._append(truth)

    def add_fleet(self, totals: Mapping[str, object]) -> None:
        """Write the totals of all nodes, as `fleet_totals` returns them, as one line."""
        self._append(totals)

    def _append(self, line: Mapping[str, object] | PodTruth | RequestTruth) -> None:
        if self._file:
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def fleet_totals(nodes: Mapping[str, NodeTruth], *, simulated_s: float, speed: float) -> dict[str, object]:
    """Return the totals of all nodes as plain data."""
    by_node = {name: asdict(truth) for name, truth in nodes.items()}
    return {"kind": "fleet", "simulated_s": simulated_s, "speed": speed, "nodes": by_node}
