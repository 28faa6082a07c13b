"""The command ``perllm submit``."""

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import click

from perllm.api.task import MAX_PRIORITY, MAX_RETRIES, OnInfeasible, Tier
from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import CredentialsError, load_credentials
from perllm.cluster.namespaces import find_default_namespace
from perllm.overview.command import read_explanation
from perllm.runner.prompts import PlacedPrompt, PromptError, read_prompts
from perllm.submission.batch import Batch, BatchError, build_batch
from perllm.submission.formats import OpenAiFormat, PlainFormat
from perllm.submission.output import AnswerFile, LinePrinter, Output, OutputError, TextPrinter
from perllm.submission.session import carry_out
from perllm.submission.submission import Submission, SubmissionError
from perllm.text import error_line

_FILE = click.Path(dir_okay=False, path_type=Path)
STDIN = Path("-")
LATE = 3
"""Exit code if all prompts were answered, and some of them late."""

SPEC_OPTIONS = (
    "model",
    "deadline",
    "max_tokens",
    "temperature",
    "seed",
    "priority",
    "tiers",
    "retries",
    "on_infeasible",
    "ttl_after_finished",
)
"""Options that are fields of the spec; what is not given is left out."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True})
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help='File with one prompt per line; if it ends in .jsonl, one JSON object per line, with "prompt" or "messages" '
    'and optionally "id", "model", "max_tokens", "temperature", "top_p", "seed" and "stop", or a request of OpenAI\'s '
    "Batch API; if it ends in .json, an array of such objects; - for one prompt per line from standard input. May be "
    "repeated.",
)
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option("--system", metavar="TEXT", help="System message for every prompt without messages of its own.")
@click.option("--model", help="Name of the model, as kubectl get llmservers shows it, of prompts that name none.")
@click.option("--deadline", required=True, metavar="DURATION", help="Time allowed for each task, such as 60s.")
@click.option(
    "--output",
    type=_FILE,
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
@click.option(
    "--priority", type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY), help="Tasks of higher priority are placed first."
)
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    type=click.Choice([one.value for one in Tier]),
    help="Tier to run on; may be repeated. Default: all.",
)
@click.option("--queue", default="", metavar="NAME", help="LocalQueue of Kueue whose quota the tasks take.")
@click.option("--retries", type=click.IntRange(0, MAX_RETRIES), help="How many times a failed attempt is repeated.")
@click.option(
    "--on-infeasible",
    type=click.Choice([one.value for one in OnInfeasible]),
    help="What to do with a task that no node is expected to finish in time. Default: BestEffort.",
)
@click.option(
    "--ttl", "ttl_after_finished", metavar="DURATION", help="How long finished tasks are kept. Default: the operator's."
)
@click.option("--window", type=click.IntRange(min=1), default=200, help="Maximum number of unfinished tasks.")
@click.option("--delete", "deletes", is_flag=True, help="Delete each task once its answer is written.")
@click.option(
    "--wait",
    "accounts",
    is_flag=True,
    help="Of a single prompt: also wait until the energy is known, and say where it ran, why, and what it cost.",
)
@click.option("--cancel-on-interrupt", is_flag=True, help="On Ctrl-C, delete the tasks that have not finished.")
@click.option("--name", help="Name of the batch, with which names of tasks begin. Default: by file and contents.")
@click.option("-n", "--namespace", help="Namespace of the tasks. Default: that of the context.")
@click.option(
    "--kubeconfig",
    type=_FILE,
    help="Kubeconfig. Default: $KUBECONFIG, ~/.kube/config, then the service account.",
)
@click.option("--context", help="Context of the kubeconfig.")
def submit(**options: Any) -> None:
    """Create a served task for each prompt, and gather the answers.

    If it is interrupted, repeat the same command: tasks that exist are not created again, and what the output has is
    not asked again. Exits with 0 if all prompts were answered in time, with 3 if all were answered and some were late,
    otherwise with 1. You need the rights to create, get, list and watch llminferencetasks, and with --delete or
    --cancel-on-interrupt to delete them.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        batch = _build_batch(options)
        exit_code = asyncio.run(_submit(batch, options))
    except (PromptError, BatchError) as error:
        raise click.UsageError(str(error)) from error
    except (CredentialsError, OutputError, SubmissionError, ApiError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError as error:  # interrupted once more, while tasks were being deleted
        raise click.Abort from error
    sys.exit(exit_code)


def _build_batch(options: dict[str, Any]) -> Batch:
    common = {field: options[field] for field in SPEC_OPTIONS if options[field] not in (None, ())}
    namespace = options["namespace"] or find_default_namespace(options["kubeconfig"], options["context"])
    stem = next((file.stem for file in options["files"]), "")
    return build_batch(
        _read(options), common, namespace=namespace, name=options["name"], stem=stem, queue=options["queue"]
    )


def _read(options: dict[str, Any]) -> Iterator[PlacedPrompt]:
    files = [file for file in options["files"] if file != STDIN]
    stdin = sys.stdin.buffer if STDIN in options["files"] else None
    return read_prompts(options["texts"], files, stdin, options["system"])


def _open_output(
    path: Path | None, batch: Batch, format_name: str, *, accounts: bool
) -> AbstractContextManager[Output]:
    models = {task.name: task.spec.model for task in batch.tasks}
    line_format = OpenAiFormat(models) if format_name == "openai" else PlainFormat()
    if path is not None:
        return AnswerFile(path, models, line_format)
    has_lines = len(batch.tasks) > 1 or format_name == "openai"
    return nullcontext(LinePrinter(line_format) if has_lines else TextPrinter(has_energies=accounts))


async def _submit(batch: Batch, options: dict[str, Any]) -> int:
    """Return the exit code."""
    client = Client(load_credentials(options["kubeconfig"], options["context"]))
    with _open_output(options["output"], batch, options["line_format"], accounts=options["accounts"]) as output:
        async with client:
            window, deletes = options["window"], options["deletes"]
            submission = Submission(client, batch, output, window=window, deletes=deletes, report=_report, rng=Random())
            carried_out = carry_out(submission, cancels=options["cancel_on_interrupt"], report=_report)
            task = asyncio.ensure_future(carried_out)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            is_complete = await task
            if options["accounts"] and is_complete and len(batch.tasks) == 1:
                await _explain(client, batch)
            return _choose_exit_code(is_complete=is_complete, late=submission.tally.late)


async def _explain(client: Client, batch: Batch) -> None:
    """Report where the only task of a batch ran, why, and what it cost."""
    try:
        lines = await read_explanation(client, batch.namespace, batch.tasks[0].name)
    except (ApiError, ValueError) as error:
        lines = [f"it cannot be explained: {error_line(error)}"]
    for line in lines:
        _report(line)


def _choose_exit_code(*, is_complete: bool, late: int) -> int:
    if not is_complete:
        return 1
    return LATE if late else 0


def _report(words: str) -> None:
    click.echo(words, err=True)
