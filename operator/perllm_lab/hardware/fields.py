"""Field types shared by the sections of a scenario."""

from typing import Annotated

from pydantic import AfterValidator, Field

from perllm_lab.hardware.catalogue import CATALOGUE


def _check_gpu(key: str) -> str:
    if key not in CATALOGUE:
        raise ValueError(f"no GPU type '{key}'; known: {', '.join(sorted(CATALOGUE))}")
    return key


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")]
GpuKey = Annotated[str, AfterValidator(_check_gpu)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Beyond these, a run would take longer than anyone waits, or figures would overflow.
Bandwidth = Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)]
"""In Mbit/s."""
RoundTrip = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
"""In milliseconds."""
PodStart = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
"""In seconds."""
Payload = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
"""In megabytes."""
Share = Annotated[float, Field(ge=0, le=1)]
GpuCount = Annotated[int, Field(ge=1, le=64)]
