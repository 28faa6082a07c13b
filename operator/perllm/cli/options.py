"""What several commands share: options, and how expected failures are shown."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from perllm.cluster_options import FILE

_P = ParamSpec("_P")

config_option = click.option("--config", "config_file", type=FILE, help="Configuration file (YAML) of the operator.")


def explained(command: Callable[_P, None]) -> Callable[_P, None]:
    """Turn expected failures into a single line that says what to do."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        from perllm.cluster.client import ApiError
        from perllm.cluster.credentials import CredentialsError
        from perllm.cluster.leadership import LeadershipError
        from perllm.cluster.release import ReleaseError
        from perllm.settings_file import ConfigError

        try:
            command(*args, **kwargs)
        except (ConfigError, CredentialsError, LeadershipError, ReleaseError, ApiError, OSError) as error:
            raise click.ClickException(str(error)) from error

    return run
