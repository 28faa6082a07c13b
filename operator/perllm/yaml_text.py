"""YAML from outside, and JSON as part of it. A key that is given twice is an error: the last one would silently win."""

from typing import Any

import yaml

from perllm.text import cut

MAX_QUOTED = 100
"""Characters of a key that are repeated in a message."""

_MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """A text that is not YAML, or gives a key twice; the message names the line."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here rather than when values are constructed: by then, keys that are merged by `<<` are among those given.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise YamlError(
                        f"line {line}: {cut(key.value, MAX_QUOTED)!r} is given twice, first in line {lines[name]}"
                    )
                lines[name] = line
        return node


def read_yaml(text: str) -> Any:
    """Return the value of a text in YAML; None for an empty one.

    Raises:
        YamlError: it is not YAML, or gives a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date like 2026-02-30 a ValueError
        raise YamlError(str(error)) from error
