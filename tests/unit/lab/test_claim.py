import os
from pathlib import Path

import pytest

from perllm_lab.claim import ClaimedError, claim, find_holder


def test_a_second_claim_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    file = tmp_path / "lab.pid"
    with claim(file):
        assert find_holder(file) == os.getpid()
        with pytest.raises(ClaimedError, match=f"process {os.getpid()} works in"), claim(file):
            pass
    with claim(file):
        pass


def test_the_file_of_a_process_that_is_gone_claims_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lab.pid"
    file.write_text(str(os.getpid()))
    assert find_holder(file) is None
    assert find_holder(tmp_path / "missing") is None
