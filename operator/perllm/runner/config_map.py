"""Stores the result in a ConfigMap.

Imported only when needed: the official client, which loads the credentials, takes as long to import as the rest of the
runner.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from random import Random

from perllm.api.report import RunReport
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.credentials import Credentials, CredentialsError, load_credentials
from perllm.completions.answer import Answer
from perllm.runner.errors import ResultError
from perllm.runner.prompts import Prompt
from perllm.runner.report import check_room, fit_answers

FIELD_MANAGER = "perllm-runner"
MAX_BYTES = 1_000_000
"""Kubernetes allows 1 MiB in total, including the report and the names."""

PAUSES = Backoff(first_s=0.5, limit_s=15.0)
PATIENCE_S = 300.0
"""Answers that took hours must not be lost while an API server restarts, or a link is down."""

CHECK_TIMEOUT_S = 10.0


async def check(namespace: str, name: str, prompts: Sequence[Prompt]) -> None:
    """Make sure that the answers can be stored before they are asked for, since later they would be lost.

    An API server that does not answer now may do so later.

    Raises:
        ResultError: they do not fit, there are no credentials, or the ConfigMap would be denied.
    """
    check_room(prompts, MAX_BYTES)
    async with Client(_load_credentials(), timeout_s=CHECK_TIMEOUT_S) as client:
        await rehearse(client, namespace, name)


async def rehearse(client: Client, namespace: str, name: str) -> None:
    """Apply an empty ConfigMap without storing it.

    Raises:
        ResultError: it would be denied; the message says what is missing.
    """
    try:
        await client.patch(f"{_path_of(namespace, name)}&dryRun=All", _build(name, {}), kind=PatchKind.APPLY)
    except ApiError as error:
        if not _may_succeed_later(error):
            raise _explain(namespace, name, error) from error


async def store(namespace: str, name: str, report: RunReport, answers: Sequence[Answer]) -> None:
    """Store report and answers with the service account of the pod.

    Raises:
        ResultError: there are no credentials, or the ConfigMap was denied.
    """
    async with Client(_load_credentials()) as client:
        await apply(client, namespace, name, report, answers, rng=Random())


async def apply(
    client: Client,
    namespace: str,
    name: str,
    report: RunReport,
    answers: Sequence[Answer],
    *,
    rng: Random,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Store report and answers by server-side apply; retries while the API server does not answer, for `PATIENCE_S`.

    Raises:
        ResultError: the ConfigMap was not written; the message says what is missing.
    """
    data = {"report.json": report.to_text(), "answers.jsonl": fit_answers(answers, MAX_BYTES).decode()}
    begun_s = now()
    for failures in count(1):
        try:
            await client.patch(_path_of(namespace, name), _build(name, data), kind=PatchKind.APPLY)
            return
        except ApiError as error:
            if now() - begun_s > PATIENCE_S or not _may_succeed_later(error):
                raise _explain(namespace, name, error) from error
        await sleep(PAUSES.pause_s(failures, rng))


def _load_credentials() -> Credentials:
    try:
        return load_credentials()
    except CredentialsError as error:
        raise ResultError(f"{error} In a pod, mount the service account's token.") from error


def _path_of(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager={FIELD_MANAGER}&force=true"


def _build(name: str, data: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _may_succeed_later(error: ApiError) -> bool:
    return error.is_conflict or (error.is_transient and error.status not in (401, 403))


def _explain(namespace: str, name: str, error: ApiError) -> ResultError:
    hint = " Let the pod's service account create and patch configmaps." if error.status == 403 else ""
    return ResultError(f"ConfigMap {namespace}/{name} cannot be written: {error}.{hint}")
