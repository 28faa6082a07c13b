"""Compares objects with schemas."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from schemas.objects import Kind, Schema


@dataclass(frozen=True, slots=True)
class Checker:
    """Compares objects with the schemas of their kinds.

    Objects without problems are remembered: most sets of values render the same definitions of resources, which take
    longest. It is shown without its schemas: asyncio writes out what a fixture returns, and these take ten seconds.
    """

    schemas: Mapping[Kind, Schema] = field(repr=False)
    _sound: set[bytes] = field(default_factory=set, repr=False)

    def list_problems(self, objects: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return a line for each place in an object that its schema does not accept."""
        return [problem for one in objects for problem in self._check(one)]

    def _check(self, one: Mapping[str, Any]) -> list[str]:
        text = orjson.dumps(one)
        if text in self._sound:
            return []
        errors = Draft202012Validator(self.schemas[one["apiVersion"], one["kind"]]).iter_errors(one)
        problems = [f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}" for error in errors]
        if not problems:
            self._sound.add(text)
        return problems
