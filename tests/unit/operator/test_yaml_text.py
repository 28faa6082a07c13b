"""YAML from outside."""

from pathlib import Path
from typing import Any

import pytest

from perllm.yaml_text import YamlError, read_yaml

SOURCES = Path(__file__).parents[3] / "operator"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is given twice, first in line 1"),
        ("a: 1\n'a': 2\n", "line 2: 'a' is given twice, first in line 1"),
        ("list:\n- {x: 1}\n- x: 1\n  x: 1\n", "line 4: 'x' is given twice, first in line 3"),
        ('{"a": {"b": 1, "b": 1}}', "line 1: 'b' is given twice, first in line 1"),
        ("1: a\n1: a\n", "line 2: '1' is given twice, first in line 1"),
        (f"{'k' * 300}: 1\n{'k' * 300}: 2\n", r"line 2: 'k{50,99}…' is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_named_with_its_lines(text: str, message: str) -> None:
    with pytest.raises(YamlError, match=message):
        read_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: {x: 1}\nb: {x: 2}\n", {"a": {"x": 1}, "b": {"x": 2}}),
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        (
            "deep: {base: &base {x: 1, y: 1}}\nown: {<<: *base, x: 2}\n",
            {"deep": {"base": {"x": 1, "y": 1}}, "own": {"x": 2, "y": 1}},
        ),
        (
            "outer: {<<: &inner {<<: &least {x: 1}, x: 2}, x: 3}\nagain: [*inner, *least]\n",
            {"outer": {"x": 3}, "again": [{"x": 2}, {"x": 1}]},
        ),
    ],
)
def test_the_same_key_elsewhere_or_instead_of_a_merged_one_is_no_second(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize("text", ["a: [", "a: 2026-02-30", "[" * 5000, "a: !!python/object:os.system x"])
def test_what_is_no_yaml_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(YamlError):
        read_yaml(text)


def test_all_yaml_from_outside_is_read_here() -> None:
    reading = [
        path.name
        for path in SOURCES.rglob("*.py")
        if any(f"yaml.{one}" in path.read_text("utf-8") for one in ("safe_load", "load("))
    ]
    assert reading == ["yaml_text.py"]
