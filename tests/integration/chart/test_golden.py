import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from integration.chart.helm import STANDARD_LABELS, Object

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").iterdir())
Render = Callable[[str], list[Object]]


class Dumper(yaml.SafeDumper):
    pass


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def normalise(objects: list[Object]) -> str:
    """Sort the objects, and drop what other tests compare with its source, and the labels that all of them carry."""
    kept = [one for one in objects if one["kind"] != "CustomResourceDefinition"]
    for one in kept:
        one["metadata"]["labels"] = {
            key: text for key, text in one["metadata"]["labels"].items() if key not in STANDARD_LABELS
        }
        if one["kind"] in ("Deployment", "DaemonSet"):
            one["spec"]["template"]["metadata"]["annotations"].pop("checksum/config")
        if one["kind"] == "ConfigMap":
            one["data"] = dict.fromkeys(one["data"], "as its source says")
    kept.sort(key=lambda one: (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]))
    return yaml.dump_all(kept, Dumper=Dumper, sort_keys=False, width=120)


def compare(objects: list[Object], default: list[Object]) -> str:
    """Return what values change, as a diff without line numbers."""
    lines = difflib.unified_diff(normalise(default).splitlines(), normalise(objects).splitlines(), n=2, lineterm="")
    return "".join("@@\n" if line.startswith("@@") else f"{line}\n" for line in list(lines)[2:])


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda file: file.stem)
def test_renders_what_was_reviewed(golden: Path, render: Render) -> None:
    """Set UPDATE_GOLDEN to write the files, and review their diff."""
    default = render("default")
    text = normalise(default) if golden.suffix == ".yaml" else compare(render(golden.stem), default)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
