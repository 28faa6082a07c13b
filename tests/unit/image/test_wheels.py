import configparser
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OPERATOR, LAB = ROOT, ROOT / "operator" / "perllm_lab"


def build_wheel(project: Path, folder: Path) -> zipfile.Path:
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(argv, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.Path(wheel)


def read_project(folder: Path) -> dict[str, str]:
    project: dict[str, str] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


@pytest.mark.parametrize(
    ("project", "package", "scripts"),
    [(OPERATOR, "perllm", ["kubectl-perllm", "perllm", "perllm-runner"]), (LAB, "perllm_lab", ["perllm-lab"])],
    ids=["operator", "lab"],
)
def test_each_wheel_holds_one_package_and_its_commands(
    project: Path, package: str, scripts: list[str], tmp_path: Path
) -> None:
    wheel = build_wheel(project, tmp_path)
    metadata = f"{package}-{read_project(project)['version']}.dist-info"
    entry_points = configparser.ConfigParser()
    entry_points.read_string((wheel / metadata / "entry_points.txt").read_text())

    assert {path.name for path in wheel.iterdir()} == {package, metadata}
    assert list_modules(wheel / package) == list_modules(ROOT / "operator" / package)
    assert list(entry_points["console_scripts"]) == scripts


def list_modules(package: zipfile.Path | Path) -> set[str]:
    return {f"{package.name}/{path.name}" for path in package.iterdir() if path.suffix == ".py"}.union(
        *(list_modules(path) for path in package.iterdir() if path.is_dir())
    )


def test_lab_requires_the_operator_of_its_own_version() -> None:
    version = read_project(OPERATOR)["version"]

    assert read_project(LAB)["version"] == version
    assert f"perllm=={version}" in read_project(LAB)["dependencies"]
