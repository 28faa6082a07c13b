"""The command line of PerLLM.

Its modules declare commands and their options; a command imports what it does when it runs. So the plugin does not wait
for the operator to be loaded.
"""

import sys

import click

from perllm.agent.command import agent
from perllm.cli.doctor import doctor
from perllm.cli.manifests import admission_policy, crds, rbac, scheduler_config
from perllm.cli.release import release
from perllm.cli.run import run
from perllm.overview.command import explain, top
from perllm.reporting.command import bill, report
from perllm.submission.command import submit
from perllm.text import replace_unencodable

COMMANDS = (
    admission_policy,
    agent,
    bill,
    crds,
    doctor,
    explain,
    rbac,
    release,
    report,
    run,
    scheduler_config,
    submit,
    top,
)


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="perllm")
def main() -> None:
    """Schedule LLM inference tasks on edge and cloud nodes: meet deadlines with the least energy, learn online."""
    replace_unencodable(sys.stdout)
