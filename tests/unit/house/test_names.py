import ast
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "operator"


def find_homes(sources: Path) -> dict[str, list[str]]:
    """The modules that define a class, by its name."""
    homes = defaultdict(list)
    for path in sorted(sources.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(sources).as_posix())
    return homes


def test_every_class_name_has_one_home() -> None:
    homes = find_homes(SOURCES)
    assert homes
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
