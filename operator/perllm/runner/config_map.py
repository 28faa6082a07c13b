"""Stores the result in a ConfigMap.

Imported only when needed: the official client, which loads the credentials, takes as long to import as the rest of the
runner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from perllm.api.report import RunReport
from perllm.backoff import Backoff
from perllm.cluster.client import ApiError, Client, PatchKind
from perllm.cluster.credentials import CredentialsError, load_credentials
from perllm.completions.answer import Answer
from perllm.runner.errors import ResultError
from perllm.runner.report import fit_answers

FIELD_MANAGER = "perllm-runner"
MAX_BYTES = 1_000_000
"""Kubernetes allows 1 MiB in total, including the report and the names."""

PAUSES = Backoff(first_s=0.5, limit_s=4.0)
MAX_TRIES = 5


async def store(namespace: str, name: str, report: RunReport, answers: Sequence[Answer]) -> None:
    """Store report and answers with the service account of the pod.

    Raises:
        ResultError: there are no credentials, or the ConfigMap was denied.
    """
    try:
        credentials = load_credentials()
    except CredentialsError as error:
        raise ResultError(f"{error} In a pod, mount the service account's token.") from error
    async with Client(credentials) as client:
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
) -> None:
    """Store report and answers by server-side apply; retries while the API server does not answer.

    Raises:
        ResultError: the ConfigMap was not written; the message says what is missing.
    """
    data = {"report.json": report.to_text(), "answers.jsonl": fit_answers(answers, MAX_BYTES).decode()}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    path = f"/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager={FIELD_MANAGER}&force=true"
    for failures in range(1, MAX_TRIES + 1):
        try:
            await client.patch(path, body, kind=PatchKind.APPLY)
            return
        except ApiError as error:
            may_succeed = error.is_conflict or (error.is_transient and error.status not in (401, 403))
            if failures == MAX_TRIES or not may_succeed:
                hint = " Let the pod's service account create and patch configmaps." if error.status == 403 else ""
                raise ResultError(f"ConfigMap {namespace}/{name} was not written: {error}.{hint}") from error
        await sleep(PAUSES.pause_s(failures, rng))
