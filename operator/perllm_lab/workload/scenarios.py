"""Finds scenarios: those of the lab by name, others by file."""

import csv
from importlib.resources import files
from pathlib import Path

from perllm_lab.hardware.inventory import InventoryError, Machines, parse_inventory
from perllm_lab.hardware.scenario import Scenario, ScenarioError, parse_scenario, with_machines

SUFFIX = ".yaml"


def load_scenario(name_or_path: str | Path, *, inventory: Path | None = None) -> Scenario:
    """Loads a scenario of the lab by its name ("modern"), or a YAML file.

    Args:
        name_or_path: The scenario.
        inventory: List of machines that replaces the one of the scenario, which needs a section `inventory`.

    Raises:
        ScenarioError: there is no such scenario, a field of it is wrong, or its inventory cannot be read.
    """
    known = files("perllm_lab") / "scenarios" / f"{name_or_path}{SUFFIX}"
    path = Path(name_or_path)
    try:
        text = known.read_text("utf-8") if known.is_file() else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(scenario_names())
        raise ScenarioError(f"no scenario {name_or_path}: {error}. Known: {names}; or pass a YAML file.") from error
    try:
        return _with_inventory(parse_scenario(text), path.parent, inventory)
    except ScenarioError as error:
        raise ScenarioError(f"{name_or_path}: {error}") from error


def scenario_names() -> list[str]:
    """Names of the scenarios of the lab."""
    found = (files("perllm_lab") / "scenarios").iterdir()
    return sorted(item.name.removesuffix(SUFFIX) for item in found if item.name.endswith(SUFFIX))


def _with_inventory(scenario: Scenario, folder: Path, chosen: Path | None) -> Scenario:
    if scenario.inventory is None:
        if chosen:
            raise ScenarioError(
                f"{scenario.name} takes no inventory: it has no section `inventory` that defines GPU models"
            )
        return scenario
    named = scenario.inventory.file
    file = chosen or (folder / named if named else None)
    found = with_machines(scenario, read_inventory(file)) if file else scenario
    if not found.all_groups():
        raise ScenarioError("there are no nodes: inventory has neither a file nor machines")
    return found


def read_inventory(path: Path) -> list[Machines]:
    """Reads a list of machines. Raises ScenarioError naming the file and the line that is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return parse_inventory(lines)
    except InventoryError as error:
        raise ScenarioError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}: cannot be read as an inventory: {error}") from error
