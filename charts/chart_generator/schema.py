"""values.schema.json: the schema of the models, without the keywords that matter only to Python."""

from typing import Any

from chart_generator.entries import describe_attributes
from chart_generator.values import Values
from perllm.policy.contextual import CsUcbParameters
from perllm.policy.table import CsUcbTableParameters

_DROPPED = frozenset({"title", "format"})
_PARAMETERS = (CsUcbParameters, CsUcbTableParameters)


def build_schema() -> dict[str, Any]:
    """Return the JSON schema of the values."""
    schema = Values.model_json_schema(by_alias=True)
    for kind in _PARAMETERS:
        _describe_parameters(schema["$defs"][kind.__name__], describe_attributes(kind))
    stripped: dict[str, Any] = _strip(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **stripped}


def _describe_parameters(definition: dict[str, Any], texts: dict[str, str]) -> None:
    """Add to the schema of a dataclass what pydantic does not know: descriptions, and the least accepted value."""
    definition["description"] = definition["description"].partition("\n")[0]
    for name, field in definition["properties"].items():
        field["description"] = texts[name]
        if field["type"] == "number":
            field["minimum"] = 0


def _strip(schema: Any) -> Any:
    """Drop keywords, but no property that has the name of one."""
    if isinstance(schema, list):
        return [_strip(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if key not in _DROPPED or isinstance(part, dict)}
    return {key: part if key == "default" else _strip(part) for key, part in kept.items()}
