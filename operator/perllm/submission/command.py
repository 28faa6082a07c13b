"""The command ``perllm submit``; what it does is imported when it runs."""

import sys
from pathlib import Path
from typing import Any

import click

from perllm.cluster_options import FILE, cluster_options


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True})
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File with one prompt per line; if it ends in .jsonl or .ndjson, one JSON object per line, with "
    '"prompt" or "messages" and optionally "id", "model", "max_tokens", "temperature", "top_p", "seed" and "stop", '
    "or a request of OpenAI's Batch API; if it ends in .json, an array of such objects; - for standard input, with "
    "prompts or objects, as its first line is. May be repeated.",
)
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option("--system", metavar="TEXT", help="System message for every prompt without messages of its own.")
@click.option("--model", help="Name of the model, as kubectl get llmservers shows it, of prompts that name none.")
@click.option("--deadline", required=True, metavar="DURATION", help="Time allowed for each task, such as 60s.")
@click.option(
    "--output",
    type=FILE,
    help="Append the answers to this file, as JSON lines. Default: print them; the text only if there is one prompt.",
)
@click.option(
    "--format",
    "line_format",
    type=click.Choice(["perllm", "openai"]),
    default="perllm",
    help="Format of the lines: PerLLM's own, or that of the output files of OpenAI's Batch API.",
)
@click.option("--max-tokens", type=int, help="Longest answer. Default: the server's own limit.")
@click.option("--temperature", type=float, help="Sampling temperature. Default: the server's own.")
@click.option("--seed", type=int, help="Seed of the sampling, the same for all prompts.")
@click.option("--priority", type=int, help="Tasks of higher priority are placed first: -1000 to 1000.")
@click.option(
    "--tier", "tiers", multiple=True, metavar="[edge|cloud]", help="Tier to run on; may be repeated. Default: all."
)
@click.option(
    "--queue", default="", show_default=False, metavar="NAME", help="LocalQueue of Kueue whose quota the tasks take."
)
@click.option("--retries", type=int, help="How many times a failed attempt is repeated. Default: 0.")
@click.option(
    "--on-infeasible",
    metavar="[BestEffort|Reject]",
    help="What to do with a task that no node is expected to finish in time. Default: BestEffort.",
)
@click.option(
    "--ttl", "ttl_after_finished", metavar="DURATION", help="How long finished tasks are kept. Default: the operator's."
)
@click.option("--window", type=click.IntRange(min=1), default=200, help="Maximum number of unfinished tasks.")
@click.option("--delete", "deletes", is_flag=True, help="Delete each task once its whole answer is written.")
@click.option(
    "--wait",
    "accounts",
    is_flag=True,
    help="For a single prompt: also wait until its energy is known, and report where it ran, why, and what it cost.",
)
@click.option("--cancel-on-interrupt", is_flag=True, help="On Ctrl-C, delete the tasks that have not finished.")
@click.option(
    "--name",
    help="Name of the batch, and prefix of its tasks' names. Default: from file name and contents.",
)
@click.option("-n", "--namespace", help="Namespace of the tasks. Default: that of the context.")
@cluster_options
def submit(**options: Any) -> None:
    """Create a served task for each prompt, and collect the answers.

    If it is interrupted, repeat the same command: it does not create tasks that exist, nor ask prompts again that have
    a line in the output. Exits with 0 if all prompts were answered in time, with 3 if all were answered and some were
    late, otherwise with 1. You need the rights to create, get, list and watch llminferencetasks, and with --delete or
    --cancel-on-interrupt to delete them.
    """
    from perllm.submission.execution import execute

    sys.exit(execute(options))
