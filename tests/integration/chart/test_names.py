"""Names that YAML could take for something else."""

import subprocess
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from pydantic.alias_generators import to_camel

from chart_generator.entries import list_entries, list_sections
from chart_generator.values import Values
from integration.chart.checker import Checker
from integration.chart.helm import Helm, Object, find, load_values, read_documents
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.toolchain import default_cache_folder
from schemas.objects import (
    KUBERNETES,
    PROMETHEUS_OPERATOR,
    read_kubernetes_schemas,
    read_prometheus_schemas,
)
from schemas.sources import fetch

SETS = {path.stem: load_values(path.stem) for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))}
SECTIONS = [path.split(".")[1:] for path, _ in list_sections(tuple(list_entries(Values())))]
NULL_SETTINGS = {path[1]: None for path in SECTIONS if path[:1] == ["config"] and len(path) == 2}
MATRIX: dict[str, Object] = SETS | {
    "null sections": {path[0]: None for path in SECTIONS if len(path) == 1 and path != ["image"]},
    "null settings": {"config": NULL_SETTINGS},
    "null settings in camelCase": {"config": {to_camel(name): None for name in NULL_SETTINGS}},
    "global registry": {"global": {"imageRegistry": "mirror:5000"}, "agent": {"enabled": True}},
}
NAMES = ("123", "true", "0x1", "on", "null")
EVERYWHERE: Object = {
    "config": {"scheduler_name": "1e3", "leader_lease": "010", "instance": "123", "namespaces": ["true", "123"]},
    "agent": {"enabled": True, "priorityClassName": "123", "serverNamespaces": ["1e3"]},
    "fullnameOverride": "null",
    "nameOverride": "true",
    "replicaCount": 2,
    "priorityClassName": "true",
    "prometheusSecret": "1e3",
    "commonLabels": {"team": "true"},
    **{name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard", "networkPolicy")},
}

ACCEPT = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-")
"""Other tests may have made some of the objects on the same API server."""

UNKNOWN: Object = {name: {"enabled": False} for name in ("serviceMonitor", "prometheusRule")}
"""Kinds that the API server does not know."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def checker() -> Checker:
    kubernetes = await fetch([*KUBERNETES.values()][-1], cache_folder=default_cache_folder())
    operator = await fetch(PROMETHEUS_OPERATOR, cache_folder=default_cache_folder())
    return Checker(read_kubernetes_schemas(kubernetes) | read_prometheus_schemas(operator))


@pytest.mark.parametrize("name", NAMES)
def test_names_are_texts_wherever_they_are(name: str, helm: Helm, checker: Checker) -> None:
    objects = helm.render(EVERYWHERE, release=name, namespace=name)

    assert checker.list_problems(objects) == []
    scheduler = yaml.safe_load(find(objects, "ConfigMap", "null")["data"]["scheduler.yaml"])
    assert scheduler["profiles"][0]["schedulerName"] == "1e3"
    assert scheduler["leaderElection"]["resourceNamespace"] == name


@pytest.mark.parametrize(
    ("values", "release"), [(name, ("123", "true")[number % 2]) for number, name in enumerate(MATRIX)]
)
def test_the_api_server_accepts_every_set_of_values(
    values: str, release: str, helm: Helm, control_plane: ControlPlane
) -> None:
    """A dry run of what Helm renders, as a program that does not read numbers as Kubernetes does would alter it."""
    text = helm.template(release, "1e3", "--kube-version=v1.37", values=MATRIX[values] | UNKNOWN)
    for name in {one["metadata"].get("namespace", "default") for one in read_documents(text)}:
        kubectl(control_plane, "create", "namespace", name)

    assert kubectl(control_plane, *ACCEPT, body=text) == ""


def kubectl(plane: ControlPlane, *arguments: str, body: str = "") -> str:
    """Return what a command has to complain about."""
    line = [*plane.kubectl_argv, *arguments]
    return subprocess.run(line, input=body, capture_output=True, text=True, check=False).stderr
