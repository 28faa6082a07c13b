import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from perllm.api.crd import crd_files, list_crds
from perllm.api.task import TaskSpec

ROOT = Path(__file__).parents[3]


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from fields(part, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


def root_schema(definition: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_written_definitions_are_the_generated_ones() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}

    assert written == crd_files(), "run `perllm crds` to write crds/ again"


@pytest.mark.parametrize("definition", list_crds(), ids=lambda definition: definition["spec"]["names"]["kind"])
def test_every_field_is_explained(definition: dict[str, Any]) -> None:
    unexplained = [path for path, part in fields(root_schema(definition)) if not part.get("description")]

    assert unexplained == [".metadata"]


@pytest.mark.parametrize("definition", list_crds(), ids=lambda definition: definition["spec"]["names"]["kind"])
def test_schema_holds_nothing_that_kubernetes_refuses(definition: dict[str, Any]) -> None:
    text = yaml.safe_dump(root_schema(definition))

    for word in ("$ref", "$defs", "title:", "type: 'null'", "propertyNames", "exclusiveM", "const:", "prefixItems"):
        assert word not in text


TASKS = [path for path in sorted((ROOT / "examples").glob("*.yaml")) if "LLMInferenceTask" in path.read_text()]


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.name)
def test_examples_are_valid_tasks(path: Path) -> None:
    tasks = [task for task in yaml.safe_load_all(path.read_text()) if task["kind"] == "LLMInferenceTask"]

    assert tasks
    for task in tasks:
        TaskSpec.model_validate(task["spec"])


def test_the_task_in_the_documentation_of_served_tasks_is_valid() -> None:
    (text,) = re.findall(
        r"```yaml\n(apiVersion: perllm.io/.*?)```", (ROOT / "docs/served-tasks.md").read_text(), re.DOTALL
    )

    assert TaskSpec.model_validate(yaml.safe_load(text)["spec"]).is_served
