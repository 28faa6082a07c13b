"""One run of the runner, from the first prompt to the written result."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp

from perllm.api.report import RunReport
from perllm.completions.answer import Answer
from perllm.completions.endpoint import Endpoint
from perllm.runner.answer_log import AnswerLog
from perllm.runner.errors import ExitCode, ResultError
from perllm.runner.patience import AnswerPatience, PatientEndpoint, Sampling
from perllm.runner.printer import AnswerPrinter
from perllm.runner.prompts import Prompt
from perllm.runner.report import cut_problem, fit_answers, fit_report, join_texts, summarise
from perllm.runner.result import Destination, DestinationKind, write_file, write_termination_message
from perllm.runner.work import Listener, Work, carry_out

log = logging.getLogger(__name__)

CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How prompts are sent, and where answers go.

    Attributes:
        url: base URL of the server.
        api_key: API key, if the server requires one.
        sampling: how answers are generated.
        patience: how long to wait.
        concurrency: number of concurrent prompts.
        deadline_unix_s: when to stop; None for never.
        destination: where the answers go.
        namespace: namespace of the ConfigMap.
        termination_log: file of the container's termination message.
        termination_bytes: maximum length of that file.
        is_quiet: whether to print no answers.
        is_resumed: whether answers that an earlier run has left next to a file are kept.
    """

    url: str
    api_key: str | None
    sampling: Sampling
    patience: AnswerPatience
    concurrency: int
    deadline_unix_s: float | None
    destination: Destination
    namespace: str
    termination_log: Path
    termination_bytes: int
    is_quiet: bool
    is_resumed: bool = False


async def run(settings: Settings, prompts: tuple[Prompt, ...]) -> int:
    """Answer the prompts, write the result, and return the exit code."""
    started_s, unix_offset_s = time.monotonic(), time.time() - time.monotonic()
    work = Work(prompts)
    answer_log = _open_log(settings, work)
    try:
        await _check_destination(settings, prompts)
    except ResultError as error:
        work.end(ExitCode.RESULT_LOST, str(error))
    else:
        await _ask(settings, work, answer_log)
    if work.problem:
        log.error("%s", work.problem)
    report = summarise(
        work,
        concurrency=settings.concurrency,
        started_s=started_s,
        finished_s=time.monotonic(),
        unix_offset_s=unix_offset_s,
    )
    if work.code == ExitCode.RESULT_LOST:
        _write_report(settings, work, report)
    else:
        await _write(settings, work, report)
    if answer_log is not None:
        answer_log.end(is_done=work.code == ExitCode.DONE)
    return work.code


def _open_log(settings: Settings, work: Work) -> AnswerLog | None:
    """Return where answers are noted as they end, for a result in a file; keep those of an earlier run if asked to."""
    destination = settings.destination
    if destination.kind is not DestinationKind.FILE:
        return None
    answer_log = AnswerLog(Path(destination.name), [settings.sampling.to_request(prompt) for prompt in work.prompts])
    if settings.is_resumed:
        work.keep(answer_log.read())
        log.info("%d of %d prompts were answered by an earlier run", len(work.kept), len(work.prompts))
    answer_log.begin(keeps=settings.is_resumed)
    return answer_log


async def _check_destination(settings: Settings, prompts: tuple[Prompt, ...]) -> None:
    """Raise a ResultError if it is certain that the answers could not be written."""
    if settings.destination.kind is DestinationKind.CONFIG_MAP:
        from perllm.runner import config_map

        await config_map.check(settings.namespace, settings.destination.name, prompts)


async def _ask(settings: Settings, work: Work, answer_log: AnswerLog | None) -> None:
    deadline_s = settings.deadline_unix_s
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
    ) as session:
        key = settings.api_key or ""
        endpoint = Endpoint(session, settings.url, api_key=key, now=time.monotonic, unix_now=time.time)
        await carry_out(
            work,
            PatientEndpoint(endpoint, settings.sampling, settings.patience, now=time.monotonic, rng=Random()),
            _note_answers(_choose_listener(settings, len(work.prompts)), answer_log),
            concurrency=settings.concurrency,
            time_left_s=None if deadline_s is None else deadline_s - time.time(),
        )


def _choose_listener(settings: Settings, prompts: int) -> Listener:
    """Return the listener that prints answers: a single one as it arrives, several as JSON lines."""
    if settings.is_quiet:
        return Listener(lambda text: None, lambda index, answer: None)
    printer = AnswerPrinter()
    if prompts == 1:
        return Listener(printer.print_text, lambda index, answer: printer.print_text("\n"))
    return Listener(lambda text: None, printer.print_line)


def _note_answers(listener: Listener, answer_log: AnswerLog | None) -> Listener:
    if answer_log is None:
        return listener

    def on_answer(index: int, answer: Answer) -> None:
        answer_log.note(index, answer)
        listener.on_answer(index, answer)

    return Listener(listener.on_text, on_answer)


async def _write(settings: Settings, work: Work, report: RunReport) -> None:
    """Write the answers to their destination, and the report, which says if that failed."""
    if settings.destination.kind is DestinationKind.TERMINATION:
        _write_report(settings, work, report, join_texts(work.answers))
        return
    # The report comes first: an API server may be down for longer than Kubernetes lets a stopped container run.
    _write_report(settings, work, report)
    try:
        await _write_answers(settings, work, report)
        report = report.model_copy(update={"result": settings.destination.location})
    except ResultError as error:
        _note_loss(work, error)
        report = report.model_copy(update={"problem": cut_problem(work.problem)})
    _write_report(settings, work, report)


def _write_report(settings: Settings, work: Work, report: RunReport, text: str = "") -> None:
    try:
        write_termination_message(settings.termination_log, fit_report(report, text, settings.termination_bytes))
    except ResultError as error:
        _note_loss(work, error)


async def _write_answers(settings: Settings, work: Work, report: RunReport) -> None:
    destination = settings.destination
    if destination.kind is DestinationKind.FILE:
        write_file(Path(destination.name), fit_answers(work.answers))
    if destination.kind is DestinationKind.CONFIG_MAP:
        from perllm.runner import config_map

        await config_map.store(settings.namespace, destination.name, report, work.answers)


def _note_loss(work: Work, error: ResultError) -> None:
    log.error("%s", error)
    work.end(ExitCode.RESULT_LOST, str(error))
