"""The section `workload` of a scenario."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perllm_lab.hardware.fields import Payload, Positive, Share


class WorkloadSettings(BaseModel):
    """How arrivals become requests.

    Attributes:
        arrivals: Name of the synthetic trace that fits the scenario, for runs that name no trace.
        payload_share: Share of the requests that carry a payload in addition to their text.
        payload_mb: Size of that payload; its mean where it varies.
        payload_law: Whether every payload has that size or it is exponentially distributed.
        slack: Deadline by size: range of the uniform factor on the unloaded latency of the median node at the mean
            output length.
        deadline_s: Deadline regardless of size: range of the uniform law, in seconds.
        hint_log_error: Standard deviation of the logarithm of hint / true length; without it no hint is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arrivals: str = "conversation"
    payload_share: Share = 0.3
    payload_mb: Payload = 2.0
    payload_law: Literal["fixed", "exponential"] = "fixed"
    slack: tuple[Positive, Positive] | None = None
    deadline_s: tuple[Positive, Positive] | None = None
    hint_log_error: Annotated[float, Field(ge=0, lt=10, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_deadline_law(self) -> "WorkloadSettings":
        if self.slack and self.deadline_s:
            raise ValueError("give slack or deadline_s, not both: each is a law of the deadline")
        for name, bounds in (("slack", self.slack), ("deadline_s", self.deadline_s)):
            if bounds and bounds[0] > bounds[1]:
                raise ValueError(f"{name} must be [low, high], not {list(bounds)}")
        return self
