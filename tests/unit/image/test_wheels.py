import configparser
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OPERATOR, LAB = ROOT, ROOT / "operator" / "perllm_lab"


def build_wheel(project: Path, folder: Path) -> zipfile.Path:
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(argv, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.Path(wheel)


@pytest.mark.parametrize(
    ("project", "package", "scripts"),
    [(OPERATOR, "perllm", ["kubectl-perllm", "perllm", "perllm-runner"]), (LAB, "perllm_lab", ["perllm-lab"])],
    ids=["operator", "lab"],
)
def test_each_wheel_holds_one_package_and_its_commands(
    project: Path, package: str, scripts: list[str], tmp_path: Path
) -> None:
    wheel = build_wheel(project, tmp_path)
    metadata = f"{package}-{VERSION}.dist-info"
    entry_points = configparser.ConfigParser()
    entry_points.read_string((wheel / metadata / "entry_points.txt").read_text())

    assert {path.name for path in wheel.iterdir()} == {package, metadata}
    assert list_modules(wheel / package) == list_modules(ROOT / "operator" / package)
    assert list(entry_points["console_scripts"]) == scripts


def list_modules(package: zipfile.Path | Path) -> set[str]:
    return {f"{package.name}/{path.name}" for path in package.iterdir() if path.suffix == ".py"}.union(
        *(list_modules(path) for path in package.iterdir() if path.is_dir())
    )
