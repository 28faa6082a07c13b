"""The machine's part of a profile: what was learned on a node, in one compressed field.

    data = base64(zlib(JSON of NodeState)), schema version 3

Any client that may write profiles may write anything, so what is read is validated as a whole before any of it is used:
types and bounds here, what matrices must satisfy in the laws. Version 2, in plain numbers per model, is still read.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from perllm.api.base import MAX_TOKENS
from perllm.learning.learner import MAX_ARMS
from perllm.learning.outcome import MAX_ENERGY_J, MAX_RUN_S, MAX_UNIX_S
from perllm.learning.recent import CAPACITY, ID_LENGTH
from perllm.learning.services import MAX_GROUPS
from perllm.text import clean_line

SCHEMA_VERSION = 3
OLD_SCHEMA_VERSION = 2

MAX_STATE = 4 * 2**20
"""Bytes of a state: eight times as much as one of `MAX_ARMS` models has."""

MAX_DATA = 2**19
"""Characters of it, compressed: a third of what etcd takes."""

COMPRESSION = 3
"""More would take twice as long for a twentieth less."""

MAX_STATISTIC = 1e12
MAX_NUMBER = 1e30
"""No sum over possible tasks comes near; the squares of all that are smaller are finite."""


_Statistic = Annotated[float, Field(ge=-MAX_STATISTIC, le=MAX_STATISTIC)]
_Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_Numbers = Annotated[tuple[_Number, ...], Field(max_length=256)]
_Count = Annotated[int, Field(ge=0, le=10**12)]
_Seconds = Annotated[float, Field(ge=0, le=MAX_RUN_S)]
_UnixTime = Annotated[float, Field(ge=0, le=MAX_UNIX_S)]
_Name = Annotated[str, Field(max_length=256)]
_TaskId = Annotated[str, Field(max_length=ID_LENGTH, pattern=r"^\S*$")]


class StateError(ValueError):
    """A stored state cannot have been learned; the message names the field."""


class _Stored(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


class LawState(_Stored):
    """A law of time or energy; see `PooledLaw.export_moments`."""

    ratio: _Numbers
    gram: _Numbers
    moment: _Numbers
    errors: _Numbers
    fit: _Numbers = ()


class LengthState(_Stored):
    """A law of lengths; see `LengthLaw.export_state`."""

    gram: _Numbers
    moment: _Numbers
    scale: _Numbers
    counts: _Numbers
    services: Annotated[
        dict[_Name, Annotated[tuple[_Number, ...], Field(min_length=3, max_length=3)]], Field(max_length=MAX_GROUPS)
    ] = {}


class ArmState(_Stored):
    """What was learned of one model on the node; `policy` is None where another policy wrote it."""

    @field_validator("latency")
    @classmethod
    def _add_requests(cls, law: LawState) -> LawState:
        """Return a law of time with a term for requests, which it had none for before they had a round trip."""
        if (len(law.moment), len(law.gram)) != (4, 10):
            return law
        rows = (law.gram[:4], law.gram[4:7], law.gram[7:9], law.gram[9:], ())
        gram = tuple(number for row in rows for number in (*row, 0.0))
        return law.model_copy(update={"moment": (*law.moment, 0.0), "gram": gram})

    model: Annotated[str, Field(min_length=1, max_length=253)]
    count: _Count
    met: _Count
    energy_count: _Count
    latency_seconds: _Seconds
    energy_joules: Annotated[float, Field(ge=0, le=2 * MAX_ENERGY_J)]
    output_tokens: Annotated[float, Field(ge=0, le=MAX_TOKENS)]
    last_outcome: _UnixTime
    load_seconds: _Seconds
    warm: bool
    policy: Annotated[dict[str, _Statistic], Field(max_length=8)] | None
    latency: LawState
    energy: LawState
    lengths: tuple[LengthState | None, LengthState | None]


class NodeState(_Stored):
    """What was learned on a node."""

    policy: _Name
    gpu_type: _Name
    models: Annotated[tuple[ArmState, ...], Field(max_length=MAX_ARMS)]
    forgotten: _Count = 0
    recent: Annotated[tuple[_TaskId, ...], Field(max_length=CAPACITY)]
    recent_times: Annotated[tuple[_UnixTime, ...], Field(max_length=CAPACITY)]
    recent_since: _UnixTime = 0.0


class _OldModel(_Stored):
    model: str
    count: _Count
    last_outcome_time: AwareDatetime | None = None
    state: dict[str, Any]


class _OldExtra(_Stored):
    recent_times: tuple[float, ...] = ()
    recent_since: float = 0.0


class _OldStatus(_Stored):
    policy: str | None = None
    gpu_type: str | None = None
    models: tuple[_OldModel, ...] = ()
    recent: tuple[str, ...] = ()
    state: _OldExtra = _OldExtra()


def pack(state: Mapping[str, Any]) -> str:
    """Return the fields of a `NodeState` as one text."""
    return base64.b64encode(zlib.compress(orjson.dumps(state), COMPRESSION)).decode()


def read_state(status: Mapping[str, Any]) -> NodeState:
    """Return the state in the status of a profile of version 2 or 3.

    Raises:
        StateError: it is of another version, or cannot have been learned.
    """
    version = status.get("schemaVersion")
    if version == OLD_SCHEMA_VERSION:
        return _upgrade(_validate(_OldStatus, _dump(status)))
    if version != SCHEMA_VERSION:
        raise StateError(f"schemaVersion: {clean_line(version, 50)} instead of {SCHEMA_VERSION}")
    return _check(_validate(NodeState, _unpack(_find_data(status))))


def _find_data(status: Mapping[str, Any]) -> str:
    state = status.get("state")
    data = state.get("data") if isinstance(state, Mapping) else None
    if not isinstance(data, str) or len(data) > MAX_DATA:
        raise StateError(f"state.data: must be a text of at most {MAX_DATA} characters")
    return data


def _unpack(data: str) -> bytes:
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(base64.b64decode(data, validate=True), MAX_STATE)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise StateError(f"state.data: {clean_line(error)}") from error
    if not reader.eof or reader.unused_data:
        raise StateError(f"state.data: cut off, followed by something, or of more than {MAX_STATE} bytes")
    return text


def _upgrade(old: _OldStatus) -> NodeState:
    """Carry a state of version 2 over; of more models than are kept those with the latest outcomes."""
    models = [_upgrade_model(one) for one in old.models]
    models.sort(key=lambda one: float(one["lastOutcome"]))
    state = {
        "policy": old.policy or "",
        "gpuType": old.gpu_type or "",
        "models": models[-MAX_ARMS:],
        "forgotten": max(len(models) - MAX_ARMS, 0),
        "recent": old.recent,
        "recentTimes": old.state.recent_times,
        "recentSince": old.state.recent_since,
    }
    return _check(_validate(NodeState, _dump(state)))


def _upgrade_model(old: _OldModel) -> dict[str, Any]:
    last_s = old.last_outcome_time.timestamp() if old.last_outcome_time else 0.0
    return {**old.state, "model": old.model, "count": old.count, "lastOutcome": last_s}


_S = TypeVar("_S", bound=_Stored)


def _validate(kind: type[_S], text: bytes) -> _S:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise StateError(clean_line(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")) from error


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise StateError(f"status: {clean_line(error)}") from error


def _check(state: NodeState) -> NodeState:
    """Raise unless the parts of a state fit one another."""
    if len(state.recent) != len(state.recent_times):
        raise StateError("recentTimes: must hold one time for each of recent")
    if len({arm.model for arm in state.models}) != len(state.models):
        raise StateError("models: must hold each model once")
    for arm in state.models:
        if max(arm.met, arm.energy_count) > arm.count or arm.count == 0:
            raise StateError(f"count: of {arm.model} must be positive, and not less than met and energyCount")
    return state
