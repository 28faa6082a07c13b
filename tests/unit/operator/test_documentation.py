"""What the documentation names must exist."""

import re
from collections.abc import Collection
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry

from chart_generator.schema import build_schema
from chart_generator.values import Values
from perllm.agent.config import AgentConfig
from perllm.agent.metrics import AgentMetrics
from perllm.api import names
from perllm.cli import main as perllm
from perllm.config import Config
from perllm.controller.end_metrics import EndMetrics
from perllm.costs.metrics import CostMetrics
from perllm.energy.accounts import AccountMetrics
from perllm.energy.bill import BillMetrics
from perllm.metrics import OperatorMetrics
from perllm.runner.cli import main as runner
from perllm.telemetry.metrics import TelemetryMetrics
from perllm_lab.cli import main as lab

ROOT = Path(__file__).parents[3]
FILES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "charts/perllm/README.md", *(ROOT / "docs").glob("*.md")]
)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(file)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = file.parent / path if path else file
        assert linked.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(read(linked)), f"{target} has no such heading"


def has_setting(path: str) -> bool:
    def step(model: object, name: str) -> object:
        fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
        field = fields.get(name)
        return getattr(field, "annotation", None) or getattr(field, "type", None)

    return reduce(step, path.split("."), Config) is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_settings_exist(file: Path) -> None:
    named = re.findall(r"(?:`|--set '?)config\.([a-z_.]+[a-z])", read(file))
    assert [path for path in named if not has_setting(path)] == []


def test_settings_that_do_not_exist_would_be_found() -> None:
    assert has_setting("telemetry.queries.energy")
    assert not has_setting("telemetry.query")


SECTIONS = "|".join(field.alias or name for name, field in Values.model_fields.items() if name != "config")


def has_value(path: str) -> bool:
    """Whether the chart has a value; what is below a free-form object is anybody's."""
    here: object = Values().model_dump(mode="json", by_alias=True)
    for key in path.split("."):
        if not isinstance(here, dict):
            return False
        if key not in here:
            return path.startswith(("podSecurityContext.", "securityContext.", "resources."))
        here = here[key]
    return True


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_values_of_the_chart_exist(file: Path) -> None:
    named = re.findall(rf"(?:`|--set '?)((?:{SECTIONS})\b(?:\.[A-Za-z_]+)+)", read(file))
    assert [path for path in named if not has_value(path)] == []


def test_values_that_do_not_exist_would_be_found() -> None:
    assert has_value("scheduler.image.tag")
    assert not has_value("scheduler.image.tags")
    assert not has_value("replicaCount.of")


OPTIONS = {
    name: {option for one in command.params for option in one.opts} | {"--help"}
    for name, command in [
        *((f"perllm {name}", command) for name, command in perllm.commands.items()),
        *((f"perllm-lab {name}", command) for name, command in lab.commands.items()),
        ("perllm-runner", runner),
    ]
}

OF_OTHERS = {
    "helm": {
        *("--force-conflicts", "--kube-version", "--no-hooks", "--reset-then-reuse-values", "--reuse-values"),
        "--take-ownership",
    },
    "kubectl": {"--field-selector", "--force", "--previous", "--replicas"},
    "docker buildx": {"--platform", "--push"},
    "model servers": {"--enable-metrics", "--interrupt", "--metrics", "--model-load"},
    "make bench": {"--part"},
}
"""Options of programs of others; an underscore ends a name here."""


def list_commands(text: str) -> list[tuple[str, str]]:
    """List the commands in a text, each with what follows it."""
    return re.findall(
        r"(?:`|-- |: |\bor |^|kubectl |\$ |bin/)(perllm(?:-runner|-lab [a-z]+| [a-z][a-z-]*))([^`\n|]*)",
        text.replace("\\\n", " "),
        re.MULTILINE,
    )


def list_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.partition(" #")[0]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_and_their_options_exist(file: Path) -> None:
    for name, rest in list_commands(read(file)):
        assert list_options(rest) <= OPTIONS[name], name + rest
    targets = set(re.findall(r"^([a-z0-9]+):", read(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z0-9]+)\b(?!-)", read(file), re.MULTILINE)) <= targets


def test_commands_of_the_plugin_and_of_the_lab_are_looked_at_as_well() -> None:
    text = "$ kubectl perllm submit \\\n  --wait   # --not-an-option\n.venv/bin/perllm-lab simulate --load 1\n"
    assert [(name, list_options(rest)) for name, rest in list_commands(text)] == [
        ("perllm submit", {"--wait"}),
        ("perllm-lab simulate", {"--load"}),
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_options_that_stand_alone_exist(file: Path) -> None:
    known = set().union(*OPTIONS.values(), *OF_OTHERS.values())
    named = set().union(*(list_options(code) for code in re.findall(r"`([^`\n]+)`", read(file))))
    assert named - known == set()


def list_metrics() -> dict[str, Collection[str]]:
    """Return the labels of every metric, by its name in Prometheus, without what follows that of a histogram."""
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    TelemetryMetrics(registry)
    AccountMetrics(registry)
    AgentMetrics(registry)
    EndMetrics(registry)
    BillMetrics(registry)
    CostMetrics(registry)
    # A family of which there is no sample yet does not show its labels.
    metrics: Any = list(registry._collector_to_names)
    return {f"{one._name}_total" if one._type == "counter" else one._name: one._labelnames for one in metrics}


def test_all_metrics_are_explained_and_no_others() -> None:
    explained = set(re.findall(r"`(perllm_[a-z_]+)`", read(ROOT / "docs/operate.md")))
    assert explained == list_metrics().keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_metrics_exist(file: Path) -> None:
    named = set(re.findall(r"\b(perllm_(?!lab\b)[a-z_]+?)(?:_bucket|_sum|_count)?\b", read(file)))
    assert named <= list_metrics().keys()


def test_the_labels_of_metrics_are_explained_here_or_where_the_row_leads() -> None:
    rows = re.findall(r"^\| (`perllm_[^|]*) \| (.*) \|$", read(ROOT / "docs/operate.md"), re.MULTILINE)
    unexplained = [
        (name, label)
        for names, text in rows
        for name in re.findall(r"`(\w+)`", names)
        for label in list_metrics()[name]
        if f"`{label}`" not in text and "see [" not in text
    ]
    assert rows
    assert unexplained == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_labels_and_annotations_exist(file: Path) -> None:
    known = {value for value in vars(names).values() if isinstance(value, str)} | {Config().kueue.served_resource}
    named = set(re.findall(r"\bperllm\.io/[a-zA-Z0-9-]*[a-zA-Z0-9]", read(file)))
    assert named <= known


RESOURCES = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]

FIELDS_OF_OTHERS = {
    *("spec.podMetadata", "spec.replicas", "spec.schedulerName", "spec.schedulingGroup", "status.hostIP"),
}


def has_field(schema: dict[str, Any], path: str) -> bool:
    for step in path.split("."):
        schema = schema.get("items", schema)
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return True
        schema = schema.get("properties", {}).get(step)
        if schema is None:
            return False
    return True


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_fields_exist(file: Path) -> None:
    schemas = [one["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for one in RESOURCES]
    named = set(re.findall(r"(?<![\w.])\.?((?:status|spec)(?:\.[a-zA-Z]+)+)", read(file)))
    assert [path for path in named - FIELDS_OF_OTHERS if not any(has_field(schema, path) for schema in schemas)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_resources_and_their_columns_exist(file: Path) -> None:
    columns = {
        name: ["NAME", *(one["name"].upper() for one in version["additionalPrinterColumns"] if not one.get("priority"))]
        for resource in RESOURCES
        for version in resource["spec"]["versions"]
        for kind in [resource["spec"]["names"]]
        for name in (kind["plural"], kind["singular"], *kind["shortNames"])
    }
    assert set(re.findall(r"\bllm[a-z]+\b", read(file))) <= columns.keys()
    for name, head in re.findall(r"^\$ kubectl get (llm\w+)[^\n]*\n(NAME +[^\n]*)", read(file), re.MULTILINE):
        assert re.split(" {2,}", head.strip()) == columns[name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_values_in_examples_are_valid(file: Path) -> None:
    schema = Draft202012Validator(build_schema())
    blocks = re.findall(r"^```(?:yaml)?\n(config:.*?)^```", read(file), re.MULTILINE | re.DOTALL)
    assert [error.message for block in blocks for error in schema.iter_errors(yaml.safe_load(block))] == []


def test_all_alerts_are_explained_and_no_others() -> None:
    alerts = re.findall(r'"alert" "(\w+)"', read(ROOT / "charts/perllm/templates/prometheusrule.yaml"))
    assert set(re.findall(r"`(PerLLM[A-Z]\w+)`", read(ROOT / "docs/operate.md"))) == set(alerts) != set()


def test_the_settings_of_agents_are_explained_for_those_who_write_them_without_the_chart() -> None:
    _, _, section = read(ROOT / "docs/install.md").partition("The file of the agents has these settings:")
    names = " ".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", names)) == set(AgentConfig.model_fields)
