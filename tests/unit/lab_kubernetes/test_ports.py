import os
import time
from pathlib import Path

import pytest

from perllm_lab.kubernetes import ports
from perllm_lab.kubernetes.ports import CLAIM_S, find_free_ports


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the claims, on a machine with five ports."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "_read_first_ephemeral_port", lambda: 10_005)
    monkeypatch.setattr(ports, "_is_free", lambda port: port != 10_004)
    return tmp_path / f"perllm-ports-{os.getuid()}"


def test_no_port_is_found_twice_though_nobody_has_bound_it_yet() -> None:
    assert {*find_free_ports(2), *find_free_ports(2)} == {10_000, 10_001, 10_002, 10_003}


def test_a_port_that_was_claimed_long_ago_is_found_again(claims: Path) -> None:
    find_free_ports(3)
    old_s = time.time() - CLAIM_S - 1.0
    for claim in claims.iterdir():
        os.utime(claim, (old_s, old_s))
    assert len(find_free_ports(3)) == 3
