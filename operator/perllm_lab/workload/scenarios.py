"""Finds scenarios: those that come with the lab by name, others by file."""

from importlib.resources import files
from pathlib import Path

from perllm_lab.hardware.scenario import Scenario, ScenarioError, parse_scenario

SUFFIX = ".yaml"


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Loads a scenario of the lab ("modern", "paper") or a YAML file.

    Raises:
        ScenarioError: there is no such scenario, or a field of it is wrong.
    """
    known = files("perllm_lab") / "scenarios" / f"{name_or_path}{SUFFIX}"
    path = Path(name_or_path)
    try:
        text = known.read_text("utf-8") if known.is_file() else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(scenario_names())
        raise ScenarioError(f"no scenario {name_or_path}: {error}. Known: {names}; or pass a YAML file.") from error
    try:
        return parse_scenario(text)
    except ScenarioError as error:
        raise ScenarioError(f"{name_or_path}: {error}") from error


def scenario_names() -> list[str]:
    """Names of the scenarios that come with the lab."""
    found = (files("perllm_lab") / "scenarios").iterdir()
    return sorted(item.name.removesuffix(SUFFIX) for item in found if item.name.endswith(SUFFIX))
