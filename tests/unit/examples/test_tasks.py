"""The examples of tasks are tasks, and the complete one is complete."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from perllm.api import names
from perllm.api.prompt import Generation
from perllm.api.task import TaskSpec

FOLDER = Path(__file__).parents[3] / "examples"
OF_SERVED_TASKS = {"prompt", "messages", "prompts", "system", *Generation.model_fields}


def load(path: Path) -> list[dict[str, Any]]:
    return [one["spec"] for one in yaml.safe_load_all(path.read_text()) if one["kind"] == names.TASK_KIND]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_of_a_task_is_valid(path: Path) -> None:
    for spec in load(path):
        TaskSpec.model_validate(spec)


def test_the_complete_example_has_every_field_of_a_task_with_a_template() -> None:
    (spec,) = load(FOLDER / "task-complete.yaml")
    fields = {field.alias or name for name, field in TaskSpec.model_fields.items() if name not in OF_SERVED_TASKS}
    assert spec.keys() == fields
