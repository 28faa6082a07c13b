"""Runs an examination and prints its findings."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click
import orjson
import requests

from perllm.cluster.client import Client
from perllm.cluster.credentials import load_credentials
from perllm.cluster.leadership import LeadershipError, find_namespace
from perllm.config import Config
from perllm.doctor.examination import Examination
from perllm.doctor.finding import Finding, Level, count_levels
from perllm.doctor.rights import Account, OutsideUser
from perllm.telemetry.source import PrometheusSource

TIMEOUT_S = 10.0


async def examine(
    config: Config,
    kubeconfig: Path | None,
    context: str | None,
    place: Account,
    *,
    user: str | None,
    has_prometheus: bool,
    as_json: bool,
) -> bool:
    """Examine a cluster, print the findings, and return whether none of them is a FAIL.

    Args:
        config: configuration of the operator.
        kubeconfig: kubeconfig of the cluster; None for where kubectl would look, or the pod's account.
        context: context of the kubeconfig.
        place: namespace that PerLLM is installed in, and name of the operator's service account; the namespace may be
            empty inside a pod.
        user: name of the operator's user if it runs outside the cluster; None if it runs in pods.
        has_prometheus: whether the cluster should have one.
        as_json: whether to print a JSON object instead of lines.
    """
    inside = None if kubeconfig or context else _find_own_namespace()
    namespace = place.namespace or inside or "perllm-system"
    account = _find_account(Account(namespace, place.name), user, inside)
    credentials = load_credentials(kubeconfig, context)
    findings: list[Finding] = []
    with closing(PrometheusSource(config.telemetry, requests.Session())) as source:
        async with Client(credentials, timeout_s=TIMEOUT_S) as client:
            examination = Examination(
                client, credentials.server, source, config, namespace, account, time.time, has_prometheus=has_prometheus
            )
            async for finding in examination.run():
                findings.append(finding)
                if not as_json:
                    click.echo(str(finding))
    counts = count_levels(findings)
    click.echo(_to_json(namespace, findings, counts) if as_json else _summarise(counts))
    return counts[Level.FAIL.value] == 0


def _find_account(place: Account, user: str | None, inside: str | None) -> Account | OutsideUser | None:
    """Return the account of the operator; None in one of its pods, which run with that account."""
    if user is not None:
        return OutsideUser(user)
    return None if place.namespace == inside else place


def _to_json(namespace: str, findings: Sequence[Finding], counts: Mapping[str, int]) -> bytes:
    content = {"namespace": namespace, "findings": [asdict(one) for one in findings], "counts": counts}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _summarise(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {level}" for level, count in counts.items())


def _find_own_namespace() -> str | None:
    """Return the namespace of the pod that this process runs in; None outside of pods."""
    try:
        return find_namespace()
    except LeadershipError:
        return None
