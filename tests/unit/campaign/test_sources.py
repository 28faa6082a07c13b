"""The hash of the code that results depend on."""

from pathlib import Path

import pytest

from perllm_lab.campaign.sources import find_modules, hash_sources

BASE = Path(__file__).parents[3] / "operator"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A few modules: the roots import one directly and one through another; a third is not imported."""
    files = {
        "perllm_lab/policies.py": "from perllm.policy import rule",
        "perllm_lab/simulator/experiment.py": "import numpy",
        "perllm_lab/report/digest.py": "",
        "perllm_lab/baselines/tuned.json": "{}",
        "perllm/policy/rule.py": "from perllm.arrays import extend",
        "perllm/arrays.py": "",
        "perllm/doctor.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("perllm_lab/policies.py", True),
        ("perllm/policy/rule.py", True),
        ("perllm/arrays.py", True),
        ("perllm_lab/baselines/tuned.json", True),
        ("perllm/doctor.py", False),
    ],
)
def test_what_is_imported_directly_or_not_matters_and_nothing_else(code: Path, file: str, matters: bool) -> None:
    before = hash_sources(code)
    (code / file).write_text("# changed")
    assert (hash_sources(code) != before) is matters


def test_of_this_code_all_that_decides_matters_and_the_control_plane_does_not() -> None:
    found = {path.relative_to(BASE).as_posix() for path in find_modules(BASE)}
    assert {
        "perllm/policy/contextual.py",
        "perllm/learning/law.py",
        "perllm/scheduling/loop.py",
        "perllm_lab/hardware/engine.py",
        "perllm_lab/baselines/agod.py",
        "perllm_lab/report/measures.py",
        "perllm_lab/workload/synthetic.py",
    } <= found
    assert not [name for name in found if name.startswith(("perllm/controller", "perllm_lab/kubernetes"))]
