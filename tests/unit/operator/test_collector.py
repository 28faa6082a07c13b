import gc
from collections.abc import Iterator

import pytest

from perllm.collector import collect_rarely


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_full_collections_are_rare_and_pass_over_what_existed_before() -> None:
    collect_rarely()
    known = gc.get_freeze_count()
    assert known > 10_000
    full = gc.get_stats()[2]["collections"]
    kept = [[number] for number in range(200_000)]
    assert gc.get_stats()[2]["collections"] == full
    assert gc.get_freeze_count() <= known
    assert len(kept) == 200_000
