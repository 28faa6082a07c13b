"""What the command ``perllm submit`` does."""

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import click

from perllm.cluster.client import ApiError, Client
from perllm.cluster.credentials import CredentialsError, load_credentials
from perllm.cluster.namespaces import find_default_namespace
from perllm.overview.display import read_explanation
from perllm.runner.prompts import PlacedPrompt, PromptError, read_prompts
from perllm.submission.batch import Batch, BatchError, build_batch
from perllm.submission.formats import OpenAiFormat, PlainFormat
from perllm.submission.output import AnswerFile, LinePrinter, Output, OutputError, TextPrinter
from perllm.submission.session import carry_out
from perllm.submission.submission import Submission, SubmissionError
from perllm.text import error_line

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


def execute(options: dict[str, Any]) -> int:
    """Create the tasks and collect the answers, as the options of the command say; return the exit code.

    Raises:
        ClickException: it could not be done; the message says why.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        batch = _build_batch(options)
        return asyncio.run(_submit(batch, options))
    except (PromptError, BatchError) as error:
        raise click.UsageError(str(error)) from error
    except (CredentialsError, OutputError, SubmissionError, ApiError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError as error:  # interrupted once more, while tasks were being deleted
        raise click.Abort from error


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
            account = partial(_explain, client, batch.namespace) if _is_accounted(batch, options) else None
            submission = Submission(
                client, batch, output, window=window, deletes=deletes, report=_report, rng=Random(), account=account
            )
            carried_out = carry_out(submission, cancels=options["cancel_on_interrupt"], report=_report)
            task = asyncio.ensure_future(carried_out)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            is_complete = await task
            return _choose_exit_code(is_complete=is_complete, late=submission.tally.late)


def _is_accounted(batch: Batch, options: dict[str, Any]) -> bool:
    """Whether it is to be reported where the task ran, which takes a screen, so that of several tasks it is not."""
    return bool(options["accounts"]) and len(batch.tasks) == 1


async def _explain(client: Client, namespace: str, task: str) -> None:
    """Report where a task ran, why, and what it cost."""
    try:
        lines = await read_explanation(client, namespace, task)
    except (ApiError, ValueError) as error:
        lines = [f"the task cannot be explained: {error_line(error)}"]
    for line in lines:
        _report(line)


def _choose_exit_code(*, is_complete: bool, late: int) -> int:
    if not is_complete:
        return 1
    return LATE if late else 0


def _report(words: str) -> None:
    click.echo(words, err=True)
