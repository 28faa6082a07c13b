import ast
from collections import defaultdict
from pathlib import Path

from unit.house.statements import list_statements

ROOT = Path(__file__).parents[3]
SOURCES = ("operator", "charts", "tests/programs", "tests/realnode", "tests/schemas")


def find_homes() -> dict[str, list[str]]:
    """The modules that define a class, by its name."""
    homes = defaultdict(list)
    for path in sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        for node in list_statements(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    return homes


def test_every_class_name_has_one_home() -> None:
    homes = find_homes()
    assert homes
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
