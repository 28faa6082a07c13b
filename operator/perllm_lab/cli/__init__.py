"""The command line of the lab."""

import sys

import click

from perllm.text import replace_unencodable
from perllm_lab.cli.cluster import demo, down, up
from perllm_lab.cli.experiments import figures, replay, simulate, tune

COMMANDS = (demo, down, figures, replay, simulate, tune, up)


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="perllm-lab")
def main() -> None:
    """An edge-cloud cluster on a laptop: a real control plane, Prometheus and operator, and simulated GPU nodes."""
    replace_unencodable(sys.stdout)
