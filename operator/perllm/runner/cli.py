"""The command line of the runner."""

import asyncio
import logging
import math
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from yarl import URL

from perllm.api.prompt_variables import PREFIX, read_variables
from perllm.api.report import MAX_REPORT_LENGTH
from perllm.runner.job import Settings, run
from perllm.runner.patience import AnswerPatience, Sampling
from perllm.runner.prompts import PromptError, collect_prompts
from perllm.runner.result import Destination, DestinationKind
from perllm.text import replace_unencodable

MIN_REPORT_LENGTH = 1024
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

EXIT_CODES = """\b
Exit codes:
  0    every prompt was answered
  2    the command line or a prompt is invalid
  3    the server could not be reached, failed, or aborted an answer
  4    the server rejected a prompt, or gave no answer to it; all others were answered
  5    out of time: --deadline or --timeout
  6    the result could not be written
  143  stopped by SIGTERM (130: SIGINT)
Partial results are written with every code."""

_FILE = click.Path(dir_okay=False, path_type=Path)


def default_url() -> str:
    """Return the address of the server on the pod's node: port 8000 of NODE_IP, or of this machine if it is not set."""
    return str(URL.build(scheme="http", host=os.environ.get("NODE_IP") or "127.0.0.1", port=8000, path="/v1"))


def _read_url(context: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        url = URL(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter(f"{text!r} is not the URL of a server: write for example http://10.0.0.7:8000/v1")
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        # The URL appears in the log and in the status of the task.
        raise click.BadParameter("must end with the path and contain no password; for keys use --api-key-file")
    return text


def _read_number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def _read_deadline(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    if not text:
        return None
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an RFC 3339 time: {error}") from error
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()


def _read_destination(context: click.Context, parameter: click.Parameter, text: str) -> Destination:
    """Return where the answers go. A destination that cannot be written is reported now rather than after the work."""
    try:
        destination = Destination.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if destination.kind is not DestinationKind.FILE:
        return destination
    file = Path(destination.name)
    if file.is_dir():
        raise click.BadParameter(f"{file} is a folder: name a file in it, such as {file / 'answers.jsonl'}")
    if not os.access(file.parent, os.W_OK):
        raise click.BadParameter(f"{file} cannot be written: mount a volume there that the pod may write to")
    return destination


def _read_key(file: Path | None) -> str | None:
    """Return the API key. It comes only from a file or the environment, where `ps` does not show it."""
    try:
        text = file.read_text(encoding="utf-8") if file else os.environ.get("OPENAI_API_KEY", "")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--api-key-file: {error}") from error
    key = text.strip()  # Secrets are often made with a newline at the end
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError("the API key contains characters that are not allowed in an HTTP header")
    return key or None


def _read_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return "default"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="perllm")
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option(
    "--prompt-file",
    "files",
    multiple=True,
    type=_FILE,
    help="File with one prompt per line; if it ends in .jsonl or .ndjson, one JSON object per line, with "
    '"prompt" or "messages" and optionally "id", "model", "max_tokens", "temperature", "top_p", "seed" and "stop", '
    "or a request of OpenAI's Batch API; if it ends in .json, an array of such objects.",
)
@click.option(
    "--stdin",
    "use_stdin",
    is_flag=True,
    help="Also read standard input: a prompt per line, or JSON objects as in a .jsonl file if its first line is one.",
)
@click.option(
    "--prompt-from-env",
    "use_variables",
    is_flag=True,
    help=f"Also read a prompt from the variables {PREFIX}0, {PREFIX}1, ...: one JSON object as in a .jsonl file, in as "
    "many parts as it takes.",
)
@click.option("--system", metavar="TEXT", help="System message for every prompt without messages of its own.")
@click.option(
    "--model", required=True, envvar="PERLLM_MODEL", show_envvar=True, help="Name of the model on the server."
)
@click.option(
    "--url",
    envvar="PERLLM_URL",
    show_envvar=True,
    default=default_url,
    show_default="http://$NODE_IP:8000/v1, or 127.0.0.1 without NODE_IP",
    callback=_read_url,
    help="Base URL of an OpenAI-compatible server. Proxies configured in the environment are not used.",
)
@click.option("--api-key-file", type=_FILE, help="File with the server's API key. Default: OPENAI_API_KEY, or no key.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer. Default: the server's own limit.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    callback=_read_number,
    help="Sampling temperature. Default: the server's own.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=1,
    help="Number of concurrent prompts. On a server that tasks share, more than 1 uses more than the task's slot, and "
    "nothing is learned from times and energies, which say nothing of single prompts.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=120.0,
    callback=_read_number,
    help="Seconds to keep retrying while the server refuses connections or answers 408, 425, 429, 502 to 504 or 520 to "
    "529, for example because it is loading its model.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    callback=_read_number,
    help="Seconds that one answer may take.",
)
@click.option(
    "--deadline",
    "deadline_unix_s",
    metavar="TIME",
    envvar="PERLLM_DEADLINE",
    show_envvar=True,
    callback=_read_deadline,
    help="RFC 3339 time at which to stop and report partial results; the pod's annotation perllm.io/deadline has that "
    "of the task. Default: never.",
)
@click.option(
    "--result",
    "destination",
    default="termination",
    metavar="DESTINATION",
    callback=_read_destination,
    help="Where the answers go: termination, as text in the report; configmap:NAME, as answers.jsonl and report.json, "
    "written at the end only, so a runner that is killed leaves its answers in its log; file:PATH, one JSON object per "
    "line.",
)
@click.option(
    "--resume",
    "is_resumed",
    is_flag=True,
    help="With --result=file:PATH, do not ask prompts again that an earlier run has answered which did not end, or "
    "answered only some. Their answers are in .NAME.partial next to PATH, which needs a volume that outlives the pod.",
)
@click.option(
    "--termination-log",
    type=_FILE,
    default=Path("/dev/termination-log"),
    help="The container's terminationMessagePath. The report with times and tokens is always written there.",
)
@click.option(
    "--termination-bytes",
    type=click.IntRange(MIN_REPORT_LENGTH, MAX_REPORT_LENGTH),
    default=MAX_REPORT_LENGTH,
    help="Longest report. Kubernetes keeps 12288 bytes per pod, so with more than three containers, divide them.",
)
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    default=_read_namespace,
    show_default="the pod's",
    help="Namespace of the ConfigMap.",
)
@click.option(
    "--quiet",
    is_flag=True,
    help="Do not print answers. By default, a single answer is printed as it arrives, several as JSON lines.",
)
def main(**options: Any) -> None:
    """Send the prompts of a task to an OpenAI-compatible server, and report times, tokens and answers.

    Answers are streamed. Time to first token, tokens, duration and, unless --result names another destination, the text
    are written to the container's termination message, from which PerLLM copies them to the status of the task.
    """
    replace_unencodable(sys.stdout)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    stdin = sys.stdin.buffer if options["use_stdin"] else None
    try:
        "".join((options["model"], options["system"] or "", *options["texts"])).encode()
        variables = read_variables(os.environ) if options["use_variables"] else ""
        prompts = collect_prompts(options["texts"], options["files"], stdin, options["system"], variables=variables)
    except UnicodeEncodeError as error:
        raise click.UsageError(f"the arguments are not valid UTF-8: {error}") from error
    except PromptError as error:
        raise click.UsageError(str(error)) from error
    if options["is_resumed"] and options["destination"].kind is not DestinationKind.FILE:
        raise click.UsageError("--resume needs --result=file:PATH: nothing else holds the answers of an earlier run")
    settings = Settings(
        url=options["url"],
        api_key=_read_key(options["api_key_file"]),
        sampling=Sampling(options["model"], options["max_tokens"], options["temperature"]),
        patience=AnswerPatience(options["wait_s"], options["timeout_s"]),
        concurrency=options["concurrency"],
        deadline_unix_s=options["deadline_unix_s"],
        destination=options["destination"],
        namespace=options["namespace"],
        termination_log=options["termination_log"],
        termination_bytes=options["termination_bytes"],
        is_quiet=options["quiet"],
        is_resumed=options["is_resumed"],
    )
    sys.exit(asyncio.run(run(settings, prompts)))


if __name__ == "__main__":
    main()
