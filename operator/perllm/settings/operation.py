"""How the operator runs: its servers, shadow mode, the bill."""

from pydantic import Field, model_validator

from perllm.api.base import MAX_INPUT_BYTES, MAX_TOKENS, Deadline
from perllm.api.quantities import DURATION_PATTERN
from perllm.settings.base import ConfigSection


class ShadowSettings(ConfigSection):
    """Which pods of other schedulers shadow mode compares: those that name their model in the annotation
    perllm.io/model, and those that carry all of these labels.
    """

    match_labels: dict[str, str] = Field(
        default={}, description="Labels of pods that are compared even without annotations. None if empty."
    )
    model: str = Field(default="", max_length=253, description="Model of those pods.")
    deadline: Deadline = Field(
        default="60s", pattern=DURATION_PATTERN, description="Deadline of pods without perllm.io/deadline."
    )
    prompt_tokens: int = Field(
        default=1000, ge=1, le=MAX_TOKENS, description="Tokens of the prompts of pods without perllm.io/prompt-tokens."
    )
    input_bytes: int = Field(
        default=0, ge=0, le=MAX_INPUT_BYTES, description="Bytes of the input of pods without perllm.io/input-bytes."
    )

    @model_validator(mode="after")
    def _check_model(self) -> "ShadowSettings":
        if self.match_labels and not self.model:
            raise ValueError("model must be set with match_labels")
        return self


class ServerSettings(ConfigSection):
    """The addresses that the operator listens on."""

    extender_port: int = Field(default=10261, ge=0, le=65535, description="Loopback port that kube-scheduler calls.")
    health_host: str = Field(
        default="0.0.0.0",
        description="Address of /healthz, /readyz and /metrics; :: where pods have addresses of IPv6 only.",
    )
    health_port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")


class BillSettings(ConfigSection):
    """The bill of energy."""

    label: str = Field(
        default="",
        max_length=317,
        description="Label of tasks, such as team, by whose values energy, tokens and deadlines are counted, as "
        "they are by namespace. None if empty.",
    )
