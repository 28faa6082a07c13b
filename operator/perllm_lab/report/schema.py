"""The shape of a results document. A change that could break a reader raises `SCHEMA_VERSION`.

Sections are read as section[policy][load]; loads are keys such as "0.9". docs/results-schema.md describes all of it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue

SCHEMA_VERSION: Literal[2] = 2

Number = FiniteFloat | None
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Part):
    """A figure over seeds: mean, ends of its 95 % interval, and the value of each seed in the order of `seeds`."""

    mean: Number
    low: Number
    high: Number
    seeds: list[Number]


class Ratio(_Part):
    """A figure of one policy over that of another, paired by seed; geometric mean and its 95 % interval."""

    mean: Number
    low: Number
    high: Number


class Unit(_Part):
    """Unit and meaning of a figure, and whether more or less of it is better."""

    title: str
    unit: str
    meaning: str
    better: Literal["more", "less"] | None


class Workload(_Part):
    """The requests at one load, by seed in the order of `seeds`; null where a seed was not run."""

    tasks: list[int | None]
    judged_from_task: list[int | None]


class Group(_Part):
    """A tier or a GPU type under one policy."""

    placed_share: Spread
    tasks: Spread
    hits: Spread
    energy_j: Spread
    first_placed_s: Spread
    first_hit_share: Spread


class Curve(_Part):
    """A line: mean and ends of its 95 % interval over seeds at each x."""

    x: list[FiniteFloat]
    mean: list[Number]
    low: list[Number]
    high: list[Number]


class ReliabilityBin(_Part):
    """Placed tasks of all seeds whose predicted chance to be in time lay in one tenth."""

    chance: Share
    hit_share: Share
    tasks: int


class Curves(_Part):
    """What changes over a run, and distributions; null where there is nothing to draw."""

    block_hit_share: Curve
    cumulative_hit_share: Curve
    regret: Curve | None
    latency_s: Curve | None
    reliability: list[ReliabilityBin]


class Document(_Part):
    """Results of one scenario."""

    schema_version: Literal[2]
    scenario: str
    setting: dict[str, JsonValue]
    loads: list[FiniteFloat]
    seeds: list[int]
    reference: str | None
    units: dict[str, Unit]
    capacity: dict[str, FiniteFloat]
    limits: dict[str, dict[str, Spread]]
    workload: dict[str, Workload]
    caveats: dict[str, list[str]]
    policies: dict[str, dict[str, dict[str, Spread]]]
    tiers: dict[str, dict[str, dict[str, Group]]]
    gpu_types: dict[str, dict[str, dict[str, Group]]]
    nodes: dict[str, dict[str, dict[str, Share]]]
    curves: dict[str, dict[str, Curves]]
    comparisons: dict[str, dict[str, dict[str, dict[str, Ratio]]]]
    timing: dict[str, dict[str, dict[str, Spread]]]
