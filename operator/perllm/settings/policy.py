"""How tasks are placed, and which are rejected."""

from dataclasses import asdict, fields
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from perllm.settings.base import ConfigSection, Name, Positive

_Parameters = TypeVar("_Parameters", CsUcbParameters, CsUcbTableParameters)


def _check_parameters(parameters: _Parameters) -> _Parameters:
    wrong = [name for name, value in asdict(parameters).items() if not (isfinite(value) and value >= 0)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} must be a finite number, and at least 0")
    return parameters


class PolicySettings(ConfigSection):
    """The policy, and the parameters of each one; policy/contextual.py and policy/table.py have the equations."""

    name: Literal["cs-ucb", "cs-ucb-table", "net-hits"] = Field(
        default="cs-ucb",
        description="The policy: cs-ucb, or cs-ucb-table, the paper's, with one mean per arm. net-hits is the former "
        "name of cs-ucb.",
    )
    cs_ucb: Annotated[CsUcbParameters, AfterValidator(_check_parameters)] = Field(
        default=CsUcbParameters(), description="Parameters of cs-ucb."
    )
    cs_ucb_table: Annotated[CsUcbTableParameters, AfterValidator(_check_parameters)] = Field(
        default=CsUcbTableParameters(),
        description="Parameters of cs-ucb-table. The values used in the paper are unknown.",
    )
    net_hits: Annotated[CsUcbParameters, AfterValidator(_check_parameters)] | None = Field(
        default=None, description="Former name of cs_ucb, which it replaces if it is set."
    )

    @model_validator(mode="before")
    @classmethod
    def _reject_moved(cls, values: Any) -> Any:
        """Explain where the parameters of the paper's policy are now: earlier versions had them in other sections."""
        section = values.get("cs_ucb") if isinstance(values, dict) else None
        places = [place for place in (values, section) if isinstance(place, dict)]
        moved = [field.name for field in fields(CsUcbTableParameters) if any(field.name in place for place in places)]
        if moved:
            raise ValueError(
                f"{', '.join(moved)} must be in the section policy.cs_ucb_table: the policy that was called cs-ucb is "
                "cs-ucb-table now"
            )
        return values

    def build(self) -> Policy:
        """Return a policy that has learned nothing yet."""
        if self.name == "cs-ucb-table":
            return CsUcbTable(self.cs_ucb_table)
        return CsUcb(self.net_hits or self.cs_ucb)


class AdmissionSettings(ConfigSection):
    """When tasks with `onInfeasible: Reject` are rejected."""

    min_hit_chance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A task with onInfeasible: Reject is rejected if no node gives it at least this chance to be in "
        "time.",
    )
    probe_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the rejected tasks of a model that run nevertheless while no other task of the model "
        "does, to test whether predictions still hold. Eligible are tasks that harm no other task and are predicted "
        "to take at most four times the time left; after 30 s without a start, also one of the others. 0 turns it off.",
    )


class FairnessSettings(ConfigSection):
    """How namespaces share the nodes; scheduling/shares.py has the equations."""

    weights: dict[Name, Positive] = Field(
        default={},
        description="Weight of each namespace. While several wait for the same nodes, one of weight 2 gets twice as "
        "many GPU seconds as one of weight 1, the default.",
    )
