import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from chart_generator.dashboard import build_dashboard, list_queries
from chart_generator.entries import ChartValue, list_entries
from chart_generator.files import CHART, EXAMPLES, KIND, build_files, write_files
from chart_generator.schema import build_schema
from chart_generator.values import Values
from perllm.agent.metrics import AgentMetrics
from perllm.config import Config
from perllm.controller.end_metrics import EndMetrics
from perllm.doctor.cluster import TESTED_MINORS
from perllm.energy.accounts import AccountMetrics
from perllm.energy.bill import BY_LABEL, BY_NAMESPACE, INFERENCE, TRANSMISSION, BillMetrics
from perllm.extender.unbound_pods import SchedulerAnswer
from perllm.metrics import OperatorMetrics
from perllm.scheduling.denial import DenialCause
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.snapshot import NodeFigures, Quality
from perllm_lab.kubernetes.modules import list_releases
from schemas.objects import KUBERNETES

ROOT = Path(__file__).parents[3]
GENERATED = build_files(ROOT)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(build_schema())


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_generated_files_are_up_to_date(path: Path) -> None:
    """`make chart` makes them."""
    assert (ROOT / path).read_text() == GENERATED[path]


def test_no_stale_file_is_left_among_the_generated_ones() -> None:
    kept = {path.relative_to(ROOT) for path in (ROOT / CHART / "files").rglob("*") if path.is_file()}

    assert kept <= set(GENERATED)


def test_another_version_is_named_wherever_the_version_is(tmp_path: Path) -> None:
    for folder in (CHART, EXAMPLES):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / KIND).parent.mkdir()
    shutil.copy(ROOT / KIND, tmp_path / KIND)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "7.8.9"\n')

    write_files(tmp_path)

    chart = yaml.safe_load((tmp_path / CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == ("7.8.9", "7.8.9")
    assert "registry.example.com/perllm/perllm:7.8.9" in chart["annotations"]["artifacthub.io/crdsExamples"]
    texts = [path.read_text() for path in (tmp_path / EXAMPLES).glob("*.yaml")]
    images = {image for text in texts for image in re.findall(r"image: (\S*perllm/perllm\S*)", text)}
    assert images == {"registry.example.com/perllm/perllm:7.8.9"}
    assert set(re.findall(r"perllm\.local/perllm:\S+", (tmp_path / KIND).read_text())) == {"perllm.local/perllm:7.8.9"}


def test_chart_doctor_and_tests_agree_on_versions_of_kubernetes() -> None:
    chart = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())
    tested = [f"1.{minor}" for minor in TESTED_MINORS]

    assert chart["kubeVersion"] == f">={tested[0]}.0-0"
    assert list(list_releases()) == tested
    assert [min(KUBERNETES), max(KUBERNETES)] == tested
    for text in ("docs/install.md", f"{CHART}/README.md.template"):
        assert f"Kubernetes {tested[0]} to {tested[-1]}" in (ROOT / text).read_text()


def test_every_value_is_described() -> None:
    assert list(list_undescribed(list_entries(Values()))) == []


def list_undescribed(entries: Any, prefix: str = "") -> Any:
    for entry in entries:
        assert isinstance(entry, ChartValue)
        if not entry.description:
            yield f"{prefix}{entry.key}"
        yield from list_undescribed(entry.children, f"{prefix}{entry.key}.")


def test_every_setting_of_the_operator_is_a_value_of_the_same_name_and_default() -> None:
    values = yaml.safe_load((ROOT / CHART / "values.yaml").read_text())

    assert values["config"] == Config().model_dump(mode="json")
    assert Config.model_validate(values["config"]) == Config()


def test_schema_accepts_the_defaults(schema: Draft202012Validator) -> None:
    values = yaml.safe_load((ROOT / CHART / "values.yaml").read_text())

    assert list(schema.iter_errors(values)) == []


def test_schema_closes_every_section_but_the_one_that_charts_share() -> None:
    schema = build_schema()
    open_sections = [
        name
        for name, part in {"": schema, **schema["$defs"]}.items()
        if "properties" in part and (part["additionalProperties"] or "description" not in part)
    ]

    assert open_sections == ["Global"]


@pytest.mark.parametrize(
    "config",
    [
        {"sheduler_name": "perllm"},
        {"scheduler_name": "Per LLM"},
        {"policy": {"name": "best"}},
        {"policy": {"cs_ucb": {"price": -1}}},
        {"policy": {"cs_ucb": {"prise": 1}}},
        {"policy": {"cs_ucb": {"exploration": 1}}},
        {"policy": {"exploration": 1}},
        {"telemetry": {"url": "prometheus:9090"}},
        {"telemetry": {"interval_s": 0}},
        {"telemetry": {"node_labels": []}},
        {"telemetry": {"matchers": {"cluster-name": "a"}}},
        {"fairness": {"weights": {"Team_A": 2}}},
        {"telemetry": {"queries": {"power": "node_power_watts"}}},
        {"nodes": {"default_bandwidth_mbit_s": {"edge": 0, "cloud": 1}}},
        {"nodes": {"default_bandwidth_mbit_s": {"edge": 1, "cloud": 1, "fog": 1}}},
        {"server": {"health_port": 70000}},
        {"log": {"level": "LOUD"}},
        {"namespaces": ["Team A"]},
        {"namespaces": ["a", "a"]},
        {"instance": "-"},
        {"tasks": {"default_ttl": "soon"}},
        {"tasks": {"history_limit": 0}},
    ],
    ids=str,
)
def test_schema_rejects_what_the_operator_rejects(config: dict[str, Any], schema: Draft202012Validator) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(config)

    assert list(schema.iter_errors({"config": config}))


def list_series() -> set[str]:
    """Return the names of the metrics in Prometheus."""
    registry = CollectorRegistry()
    (
        OperatorMetrics(registry),
        TelemetryMetrics(registry),
        AccountMetrics(registry),
        BillMetrics(registry),
        EndMetrics(registry),
        AgentMetrics(registry),
    )
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + end for family in registry.collect() for end in suffixes.get(family.type, [""])}


def test_dashboard_queries_metrics_that_exist() -> None:
    assert set(re.findall(r"perllm_\w+", " ".join(list_queries()))) <= list_series()


def test_panels_of_the_dashboard_have_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in build_dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_alerts_query_metrics_that_exist() -> None:
    assert set(re.findall(r"perllm_\w+", read_alerts())) <= list_series()


def test_alerts_and_dashboard_select_values_of_labels_that_exist() -> None:
    known: dict[str, Collection[str]] = {
        "figure": NodeFigures().figures(),
        "quality": set(Quality),
        "cause": set(DenialCause),
        "answer": set(SchedulerAnswer),
        "alive": {"true", "false"},
        "met": {"true", "false"},
        "by": {BY_NAMESPACE, BY_LABEL},
        "part": {INFERENCE, TRANSMISSION},
        "verb": {"filter", "prioritize", "bind"},
    }

    asked = re.findall(r'[{,](\w+)!?="(\w+)"', read_alerts() + " ".join(list_queries()))

    assert {label for label, _ in asked} == set(known)
    assert [(label, value) for label, value in asked if value not in known[label]] == []


def read_alerts() -> str:
    return (ROOT / CHART / "templates/prometheusrule.yaml").read_text()
