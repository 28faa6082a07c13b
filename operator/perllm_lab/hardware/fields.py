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
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
GpuCount = Annotated[int, Field(ge=1, le=64)]
