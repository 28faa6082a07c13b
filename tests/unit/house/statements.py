import ast
from collections.abc import Iterator

FIELDS = ("body", "orelse", "finalbody", "handlers", "cases")


def list_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Return all statements in a module; expressions, which are most of it, hold no functions and no classes."""
    for field in FIELDS:
        for one in getattr(node, field, ()):
            yield one
            yield from list_statements(one)
