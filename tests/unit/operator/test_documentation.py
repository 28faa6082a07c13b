"""What the documentation names must exist."""

import re
from functools import reduce
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from perllm.config import Config
from perllm.metrics import OperatorMetrics
from perllm.telemetry.metrics import TelemetryMetrics

ROOT = Path(__file__).parents[3]
FILES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_settings_exist(file: Path) -> None:
    named = {path for path in re.findall(r"`config\.([a-z_.]+[a-z])", read(file)) if path != "yaml"}
    assert {path for path in named if not has_setting(path)} == set()


def test_settings_that_do_not_exist_would_be_found() -> None:
    assert isinstance(Config, type(BaseModel))
    assert has_setting("telemetry.queries.energy")
    assert not has_setting("telemetry.query")


def test_all_metrics_are_explained_and_no_others() -> None:
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    TelemetryMetrics(registry)
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    explained = set(re.findall(r"`(perllm_[a-z_]+)`", read(ROOT / "docs/operate.md")))
    assert explained == exposed
