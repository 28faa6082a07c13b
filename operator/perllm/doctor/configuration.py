"""Checks the configuration for what a later version may not accept."""

from collections.abc import Iterator

from perllm.config import Config
from perllm.doctor.finding import Finding, ok, warn

CONFIGURATION = "configuration"


def check_configuration(config: Config) -> Iterator[Finding]:
    """Yield a warning for each deprecated setting, or that there is none."""
    for deprecation in config.deprecations:
        yield warn(CONFIGURATION, deprecation.finding, deprecation.advice)
    if not config.deprecations:
        yield ok(CONFIGURATION, "no deprecated settings")
