"""Configuration of what energy costs."""

from datetime import tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from perllm.api.task import Tier

GRAMS_PER_KILOGRAM = 1000.0


class _CostSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be the name of a time zone, such as Europe/Berlin or UTC") from error
    return name


Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_Figure = Annotated[float, Field(allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TariffPeriod(_CostSection):
    """Hours of a week for which a figure holds."""

    from_hour: int = Field(ge=0, le=23, description="Hour of the day at which it begins.")
    to_hour: int = Field(
        ge=1, le=24, description="Hour at which it ends. Up to from_hour, it ends on the following day."
    )
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, description="Days on which it begins, such as Sat.")
    per_kwh: _Figure = Field(description="What a kilowatt hour costs meanwhile.")

    def holds(self, weekday: int, hour: int) -> bool:
        """Return whether it holds in an hour of a weekday, counted from Monday, both in local time."""
        if self.from_hour < self.to_hour:
            return self.from_hour <= hour < self.to_hour and DAYS[weekday] in self.days
        begins = weekday if hour >= self.from_hour else weekday - 1
        return (hour >= self.from_hour or hour < self.to_hour) and DAYS[begins] in self.days


class TariffSettings(_CostSection):
    """What a kilowatt hour costs on some nodes: always, in some hours, or as a query says."""

    tiers: tuple[Tier, ...] = Field(default=(), description="Tiers of the nodes; all if empty.")
    match_labels: dict[str, str] = Field(default={}, description="Labels of the nodes; all nodes if empty.")
    per_kwh: _Figure = Field(
        description="What a kilowatt hour costs when no period holds. With a query, what is assumed until it has "
        "answered for the first time."
    )
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = Field(
        default="UTC", description="Time zone of the hours and days of periods, and of the pattern of a day."
    )
    periods: tuple[TariffPeriod, ...] = Field(
        default=(), description="Hours with other figures; the first that holds counts."
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        description="PromQL that returns one series with the present figure. It is queried over the last 7 days, for "
        "the forecast.",
    )
    query_unit: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="What to multiply the figures of the query by, such as 0.001 for a price per megawatt hour.",
    )

    @model_validator(mode="after")
    def _check_one_source(self) -> "TariffSettings":
        if self.query is not None and self.periods:
            raise ValueError("must have either periods or a query")
        return self

    @property
    def is_for_all(self) -> bool:
        """Whether every node has this tariff, unless an earlier one applies."""
        return not self.tiers and not self.match_labels

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)


def _check_last(tariffs: tuple[TariffSettings, ...]) -> tuple[TariffSettings, ...]:
    if tariffs and not tariffs[-1].is_for_all:
        raise ValueError("the last tariff must have neither tiers nor match_labels, so that every node has one")
    return tariffs


Tariffs = Annotated[tuple[TariffSettings, ...], AfterValidator(_check_last)]


class CostWeights(_CostSection):
    """What is minimised: the sum of energy, money and carbon, each with its weight."""

    energy: _Weight = Field(default=1.0, description="Weight of a kilowatt hour.")
    money: _Weight = Field(default=0.0, description="Weight of a unit of money.")
    carbon: _Weight = Field(
        default=0.0, description="Weight of a kilogram of CO2; with a weight of money of 1, the price of a kilogram."
    )

    @property
    def is_energy_alone(self) -> bool:
        """Whether a joule costs the same everywhere and always."""
        return not (self.money or self.carbon)

    def weigh(self, money: float, grams: float) -> float:
        """Return what a kilowatt hour costs that costs so much money and carbon; never less than 0."""
        return max(self.energy + self.money * money + self.carbon * grams / GRAMS_PER_KILOGRAM, 0.0)


class CostSettings(_CostSection):
    """What the energy of nodes costs, and what of it is minimised."""

    weights: CostWeights = Field(
        default=CostWeights(), description="What is minimised. By default energy, regardless of its cost."
    )
    money: Tariffs = Field(
        default=(),
        description="Money per kilowatt hour. The first tariff that applies to a node counts; the last one applies to "
        "all.",
    )
    carbon: Tariffs = Field(
        default=(),
        description="Grams of CO2 per kilowatt hour. The first tariff that applies to a node counts; the last one "
        "applies to all.",
    )

    @property
    def has_tariffs(self) -> bool:
        """Whether it is known what energy costs."""
        return bool(self.money or self.carbon)

    @model_validator(mode="after")
    def _check_weights(self) -> "CostSettings":
        weights = self.weights
        if not (weights.energy or weights.money or weights.carbon):
            raise ValueError("one of weights.energy, weights.money and weights.carbon must be above 0")
        for name in ("money", "carbon"):
            if getattr(weights, name) and not getattr(self, name):
                raise ValueError(f"weights.{name} needs {name}: at least one tariff")
        return self
