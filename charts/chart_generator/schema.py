"""values.schema.json: the schema of the models, without the keywords that matter only to Python."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from chart_generator.entries import describe_attributes, is_section
from chart_generator.values import Values
from perllm.config import Config
from perllm.policy.contextual import CsUcbParameters
from perllm.policy.table import CsUcbTableParameters

_DROPPED = frozenset({"title", "format"})
_PARAMETERS = (CsUcbParameters, CsUcbTableParameters)


def build_schema() -> dict[str, Any]:
    """Return the JSON schema of the values."""
    schema = Values.model_json_schema(by_alias=True)
    for kind in _PARAMETERS:
        _describe_parameters(schema["$defs"][kind.__name__], describe_attributes(kind))
    for name in _list_section_names(Config()):
        _accept_camel_case(schema["$defs"][name]["properties"], name)
    stripped: dict[str, Any] = _strip(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **stripped}


def _describe_parameters(definition: dict[str, Any], texts: dict[str, str]) -> None:
    """Add to the schema of a dataclass what pydantic does not know: descriptions, and the least accepted value."""
    definition["description"] = definition["description"].partition("\n")[0]
    for name, field in definition["properties"].items():
        field["description"] = texts[name]
        if field["type"] == "number":
            field["minimum"] = 0


def _list_section_names(section: Any) -> Iterator[str]:
    yield type(section).__name__
    for _, value in section if isinstance(section, BaseModel) else ():
        if is_section(value):
            yield from _list_section_names(value)


def _accept_camel_case(properties: dict[str, Any], definition: str) -> None:
    """Accept the settings of the operator in the spelling of the other values as well; the chart renames them.

    Helm drops a null only where it knows a default in the same spelling, so here it reaches the schema.
    """
    for name in [name for name in properties if to_camel(name) != name]:
        own = {"$ref": f"#/$defs/{definition}/properties/{name}"}
        properties[to_camel(name)] = {"anyOf": [own, {"type": "null"}]}


def _strip(schema: Any) -> Any:
    """Drop keywords, but no property that has the name of one."""
    if isinstance(schema, list):
        return [_strip(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if key not in _DROPPED or isinstance(part, dict)}
    if "patternProperties" in kept:
        # Names that match no pattern are errors to the operator; a schema accepts them unless it says so.
        kept = {"additionalProperties": False, **kept}
    return {key: part if key == "default" else _strip(part) for key, part in kept.items()}
