"""What names the version: Chart.yaml, and the image in examples and docs. It is written once, in pyproject.toml."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

_IMAGE = re.compile(r"((?:registry\.example\.com/perllm|perllm\.local)/perllm:)[\w.+-]+")


def read_version(project: Path) -> str:
    """Return the version of the project in this folder."""
    version: str = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def render_metadata(template: str, version: str, example: dict[str, Any]) -> str:
    """Return Chart.yaml.

    Args:
        template: Its text with ``<version>`` and, on a line of its own, ``<example>``.
        version: Of the chart and of the operator.
        example: A task, shown by Artifact Hub.
    """
    return re.sub(
        r"^( *)<example>$",
        lambda mark: _indent(yaml.safe_dump([example], sort_keys=False, width=120), mark[1]),
        template.replace("<version>", version),
        flags=re.MULTILINE,
    )


def name_image(text: str, version: str) -> str:
    """Replace the tag of the project's image wherever the text names it."""
    return _IMAGE.sub(rf"\g<1>{version}", text)


def _indent(text: str, margin: str) -> str:
    return "\n".join(margin + line for line in text.splitlines())
