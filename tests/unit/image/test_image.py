import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAB = tomllib.loads((ROOT / "operator/perllm_lab/pyproject.toml").read_text())
LAB_ONLY = [one for one in LAB["project"]["dependencies"] if one != "perllm"]
LOCKS = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *LAB_ONLY],
    "requirements-operator.lock": PROJECT["project"]["dependencies"],
    "requirements-build.lock": PROJECT["dependency-groups"]["build"],
}


def read_lock(name: str) -> dict[str, str]:
    """Return the text of every locked package, its hashes included, by its name."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    return {Requirement(entry.partition("\\")[0]).name: entry for entry in entries}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_dependency_by_hash_and_names_no_host(name: str) -> None:
    locked = read_lock(name)

    assert {Requirement(one).name for one in LOCKS[name]} <= locked.keys()
    assert all("==" in entry and "--hash=sha256:" in entry for entry in locked.values())
    assert "://" not in (ROOT / name).read_text()


def test_operator_gets_the_versions_that_were_tested() -> None:
    tested, shipped = read_lock("requirements.lock"), read_lock("requirements-operator.lock")

    assert {name: entry.split()[0] for name, entry in shipped.items()}.items() <= {
        name: entry.split()[0] for name, entry in tested.items()
    }.items()


def test_operator_gets_nothing_that_only_the_lab_needs() -> None:
    assert {Requirement(one).name for one in LAB_ONLY}.isdisjoint(read_lock("requirements-operator.lock"))
