"""Values that are missing, null or spelled as in the rest of the chart."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from chart_generator.entries import list_entries, list_sections
from chart_generator.values import Values
from integration.chart.helm import IMAGE, Helm, Object, find
from perllm.config import Config

SECTIONS = dict(list_sections(tuple(list_entries(Values()))))
MAPS = {"headers", "weights", "default_bandwidth_mbit_s", "transmission_microjoule_per_bit", "requests", "limits"}


PATHS = [path.split(".")[1:] for path in SECTIONS if path not in ("values", "values.image")]


def nest_null(paths: Iterable[Sequence[str]]) -> Object:
    """Values in which some keys are null, each given with the keys around it, outermost first."""
    values: Object = {}
    for *around, last in paths:
        reduce(lambda outer, key: outer.setdefault(key, {}), around, values)[last] = None
    return values


@pytest.mark.parametrize("depth", sorted({len(path) for path in PATHS}))
def test_sections_that_are_null_have_their_defaults(depth: int, helm: Helm) -> None:
    """So have those that are missing since an upgrade with --reuse-values does not know them.

    Sections of one depth are in none of each other, so each of them is seen to be null.
    """
    assert helm.render(nest_null(path for path in PATHS if len(path) == depth)) == helm.render({})


def test_sections_that_are_null_in_the_spelling_of_the_other_values_have_their_defaults(helm: Helm) -> None:
    spelled = [[to_camel(key) for key in path] for path in PATHS if path[0] == "config" and "_" in path[-1]]

    assert helm.render(nest_null(spelled)) == helm.render({})


def test_values_that_are_null_have_their_defaults(helm: Helm) -> None:
    root: Object = {"values": {}}
    for path, defaults in SECTIONS.items():
        section = reduce(lambda outer, key: outer.setdefault(key, {}), path.split("."), root)
        section |= {key: None for key, default in defaults.items() if not isinstance(default, dict | list)}
    root["values"]["image"]["repository"] = IMAGE

    assert helm.render(root["values"]) == helm.render({})


@pytest.mark.parametrize("path", ["", "nodes"])
def test_settings_that_are_null_in_the_spelling_of_the_other_values_have_their_defaults(path: str, helm: Helm) -> None:
    defaults = SECTIONS[".".join(filter(None, ("values.config", path)))]
    nulls: Object = {to_camel(key): None for key, default in defaults.items() if not isinstance(default, dict | list)}

    assert helm.render({"config": {path: nulls} if path else nulls}) == helm.render({})


def test_objects_that_are_null_are_empty(helm: Helm) -> None:
    pod = find(helm.render({"nodeSelector": None, "podSecurityContext": {"runAsUser": None}}), "Deployment")
    spec = pod["spec"]["template"]["spec"]

    assert "nodeSelector" not in spec
    assert "runAsUser" not in spec["securityContext"]


def spell_in_camel_case(config: Mapping[str, Any]) -> Object:
    return {
        to_camel(key): spell_in_camel_case(value) if isinstance(value, dict) and key not in MAPS else value
        for key, value in config.items()
    }


def test_settings_may_be_spelled_as_the_rest_of_the_values(helm: Helm) -> None:
    """Also those of which the chart has a default in the spelling of the operator; keys of maps stay as they are."""
    config = {
        "telemetry": {"token_file": "/token", "headers": {"xScope": "a"}, "queries": {"energy_unit_j": 1.0}},
        "policy": {"cs_ucb": {"harm_weight": 2.0}},
        "nodes": {"default_bandwidth_mbit_s": {"edge": 50.0}, "tier_label": "example.com/tier"},
        "start_timeout_s": 60.0,
    }

    assert helm.render({"config": spell_in_camel_case(config)}) == helm.render({"config": config})


def test_every_setting_may_be_spelled_as_the_rest_of_the_values(helm: Helm) -> None:
    config = Config().model_dump(mode="json")

    assert helm.render({"config": spell_in_camel_case(config)}) == helm.render({})
