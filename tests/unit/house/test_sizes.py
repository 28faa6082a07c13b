import ast
from collections.abc import Iterator
from pathlib import Path

from unit.house.statements import list_statements

ROOT = Path(__file__).parents[3]
FOLDERS = ("operator", "charts", "tests")

MAX_FUNCTION_LINES = 50
LONGER_FUNCTIONS: dict[str, str] = {
    "tests/unit/report/conftest.py:build_run": "one argument and one line per field of a run",
}

MAX_MODULE_LINES = 400
LONGER_MODULES: dict[str, str] = {
    "operator/perllm/scheduling/scheduler.py": "one short method per input that decisions depend on",
}
"""Only of what is shipped: tests of one subject are looked for in one file."""


def find_long_functions(source: str, limit: int) -> Iterator[str]:
    """Return the names of the functions with more lines than the limit, docstrings included."""
    for node in list_statements(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > limit:
                yield node.name


def list_files(*folders: str) -> dict[str, str]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def test_the_lines_of_a_function_are_counted_from_its_first_to_its_last() -> None:
    source = "class A:\n    async def f(\n        self,\n    ):\n        '''Text.'''\n        return 1\n"
    assert list(find_long_functions(source, 4)) == ["f"]
    assert list(find_long_functions(source, 5)) == []


def test_functions_are_short_but_for_those_with_a_reason() -> None:
    files = list_files(*FOLDERS)
    found = {f"{path}:{name}" for path, text in files.items() for name in find_long_functions(text, MAX_FUNCTION_LINES)}
    assert found == set(LONGER_FUNCTIONS)


def test_modules_are_short_but_for_those_with_a_reason() -> None:
    files = list_files("operator", "charts")
    assert {path for path, text in files.items() if text.count("\n") > MAX_MODULE_LINES} == set(LONGER_MODULES)
