"""What the documentation names must exist."""

import re
from functools import reduce
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from chart_generator.values import Values
from perllm.agent.config import AgentConfig
from perllm.agent.metrics import AgentMetrics
from perllm.cli import main as perllm
from perllm.config import Config
from perllm.controller.end_metrics import EndMetrics
from perllm.costs.metrics import CostMetrics
from perllm.energy.accounts import AccountMetrics
from perllm.energy.bill import BillMetrics
from perllm.metrics import OperatorMetrics
from perllm.runner.cli import main as runner
from perllm.telemetry.metrics import TelemetryMetrics

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


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_and_their_options_exist(file: Path) -> None:
    parsers = {f"perllm {name}": command for name, command in perllm.commands.items()} | {"perllm-runner": runner}
    for name, rest in re.findall(
        r"(?:`|-- |: |\bor |^)(perllm(?:-runner| [a-z][a-z-]*))([^`\n|]*)", read(file), re.MULTILINE
    ):
        known = {option for one in parsers[name].params for option in one.opts} | {"--help"}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, name + rest
    targets = set(re.findall(r"^([a-z0-9]+):", read(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z0-9]+)\b(?!-)", read(file), re.MULTILINE)) <= targets


def test_all_metrics_are_explained_and_no_others() -> None:
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    TelemetryMetrics(registry)
    AccountMetrics(registry)
    AgentMetrics(registry)
    EndMetrics(registry)
    BillMetrics(registry)
    CostMetrics(registry)
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    explained = set(re.findall(r"`(perllm_[a-z_]+)`", read(ROOT / "docs/operate.md")))
    assert explained == exposed


def test_all_alerts_are_explained_and_no_others() -> None:
    alerts = re.findall(r'"alert" "(\w+)"', read(ROOT / "charts/perllm/templates/prometheusrule.yaml"))
    assert set(re.findall(r"`(PerLLM[A-Z]\w+)`", read(ROOT / "docs/operate.md"))) == set(alerts) != set()


def test_the_settings_of_agents_are_explained_for_those_who_write_them_without_the_chart() -> None:
    _, _, section = read(ROOT / "docs/install.md").partition("The file of the agents has these settings:")
    names = " ".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", names)) == set(AgentConfig.model_fields)
