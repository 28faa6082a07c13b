import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
OPERATOR = ROOT / "operator" / "perllm"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def list_layers() -> dict[str, int]:
    """Return the number of the layer of each room of the operator, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    rooms = {room: number for number, layer in enumerate(layers) for room in re.split(r" [|:] ", layer)}
    return {room.removeprefix("perllm."): number for room, number in rooms.items() if room.startswith("perllm.")}


def list_rooms() -> list[set[str]]:
    """Return the rooms in each row of the architecture's picture, from the top."""
    picture = ARCHITECTURE.split("## Rooms of the operator")[1].split("```")[1]
    rows: list[set[str]] = [set()]
    for line in picture.strip().splitlines():
        names, _, _ = line.partition("  ")
        rows[-1].update(re.findall(r"\w+", names))
        if not names.endswith(","):
            rows.append(set())
    return rows[:-1]


def test_every_room_has_a_layer() -> None:
    found = {path.stem for path in OPERATOR.glob("*.py")} | {
        path.parent.name for path in OPERATOR.glob("*/__init__.py")
    }
    assert found - {"__init__", "__main__"} == set(list_layers())


def test_the_picture_of_the_architecture_has_the_order_of_imports() -> None:
    layers = list_layers()
    expected = [{room for room, at in layers.items() if at == number} for number in sorted(set(layers.values()))]
    assert list_rooms() == expected


def test_files_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`((?:perllm/)?[a-z_]+/[a-z_/]+\.py|[a-z_]+\.py)`", ARCHITECTURE)
    known = {path.relative_to(OPERATOR).as_posix() for path in OPERATOR.rglob("*.py")}
    names = {Path(path).name for path in known}
    assert len(named) > 80
    assert [path for path in named if path.removeprefix("perllm/") not in (known if "/" in path else names)] == []
