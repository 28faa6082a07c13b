"""`make release`, up to the commands that push and sign: those only exist in a dry run here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from chart_generator.metadata import read_version

ROOT = Path(__file__).parents[3]
VERSION = read_version(ROOT)
IMAGE = "registry.example.com/team/perllm"
ATTACHED = [f"dist/perllm-{VERSION}{kind}" for kind in (".tgz", "-py3-none-any.whl", ".sbom.json")]
NO_DIGEST = f"sha256:{'0' * 64}"
COMMITTED_S = 1_750_000_000
SETTINGS = {
    "REGISTRY": "registry.example.com/team",
    "BASE_IMAGE": f"python:3.13-slim@sha256:{'a' * 64}",
    "PROJECT_URL": "https://git.example.com/team/perllm",
    "MAINTAINER": "Jo Doe <jo@example.com>",
}


def git(project: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Jo", "-c", "user.email=jo@example.com"]
    environment = os.environ | {"GIT_COMMITTER_DATE": f"@{COMMITTED_S} +0000"}
    subprocess.run(["git", *identity, *arguments], cwd=project, env=environment, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a tagged commit."""
    for name in (".ci", "charts/perllm"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".gitignore").write_text("dist/\n")
    (tmp_path / "CHANGELOG.md").write_text(
        f"## Unreleased\n\nTo come.\n\n## {VERSION} - 2026-01-02\n\nNew.\n\n## 0.0.1 - once\n"
    )
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    git(tmp_path, "tag", f"v{VERSION}")
    return tmp_path


def release(project: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1", **SETTINGS, **settings}
    return subprocess.run([project / ".ci/release"], env=environment, capture_output=True, text=True)


def test_dry_run_prints_what_would_be_pushed_and_signed(project: Path) -> None:
    image, chart = f"{IMAGE}@{NO_DIGEST}", f"registry.example.com/team/charts/perllm@{NO_DIGEST}"

    done = release(project)

    commands = [line.removeprefix("+ ") for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert done.returncode == 0, done.stderr
    assert [" ".join(command.split()[:4]) for command in commands] == [
        "docker buildx build --platform",
        f"cosign sign --yes {image}",
        "helm package dist/chart --destination",
        f"helm push dist/perllm-{VERSION}.tgz oci://registry.example.com/team/charts",
        f"cosign sign --yes {chart}",
        ".venv/bin/python -m hatchling build",
        "docker buildx imagetools inspect",
        *[f"cosign sign-blob --yes {file}" for file in ATTACHED],
    ]
    assert "--platform linux/amd64,linux/arm64" in commands[0]
    assert "--sbom=true --provenance=mode=max" in commands[0]
    assert f"BASE_IMAGE={SETTINGS['BASE_IMAGE']}" in commands[0]
    assert "nothing was pushed or signed" in done.stdout
    assert f"attach   dist/image.json, {' '.join(ATTACHED)}, with their signatures" in done.stdout


def test_released_chart_installs_the_released_image_and_names_its_home(project: Path) -> None:
    release(project)

    values = yaml.safe_load((project / "dist/chart/values.yaml").read_text())
    chart = yaml.safe_load((project / "dist/chart/Chart.yaml").read_text())
    assert values["image"]["repository"] == IMAGE
    assert values["image"]["digest"] == NO_DIGEST
    assert values["scheduler"]["image"]["digest"] == ""
    assert chart["home"] == SETTINGS["PROJECT_URL"]
    assert chart["maintainers"] == [{"name": "Jo Doe", "email": "jo@example.com"}]


def test_files_of_the_chart_have_the_time_of_the_commit(project: Path) -> None:
    release(project)

    assert {path.stat().st_mtime for path in (project / "dist/chart").rglob("*")} == {COMMITTED_S}


def test_notes_are_the_section_of_the_version(project: Path) -> None:
    release(project)

    assert (project / "dist/notes.md").read_text().strip() == "New."


@pytest.mark.parametrize("name", SETTINGS)
def test_what_cannot_be_known_must_be_set(project: Path, name: str) -> None:
    done = release(project, **{name: ""})

    assert done.returncode == 1
    assert f"set {name}: " in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("BASE_IMAGE", "python:3.13-slim", "must end with a digest"),
        ("MAINTAINER", "Jo Doe", "of the form 'Name <mail>'"),
    ],
)
def test_settings_are_checked(project: Path, name: str, value: str, error: str) -> None:
    done = release(project, **{name: value})

    assert done.returncode == 1
    assert error in done.stderr


def test_only_a_commit_is_released(project: Path) -> None:
    (project / "new.txt").touch()

    assert "commit or remove" in release(project).stderr


def test_only_a_commit_with_the_tag_of_its_version_is_released(project: Path) -> None:
    git(project, "tag", "--delete", f"v{VERSION}")

    assert f"git tag v{VERSION}" in release(project).stderr


@pytest.mark.parametrize("section", ["", f"## {VERSION} - not released\n", f"## {VERSION}9 - 2026-01-02\n"])
def test_only_a_version_with_a_date_in_the_changelog_is_released(project: Path, section: str) -> None:
    (project / "CHANGELOG.md").write_text(f"## Unreleased\n\n{section}")
    git(project, "commit", "--quiet", "--all", "--message", "Second")
    git(project, "tag", "--force", f"v{VERSION}")

    assert f"no section '## {VERSION} - YYYY-MM-DD'" in release(project).stderr
