"""What is written into the profile of a node of what its model servers serve, and when."""

import pytest

from perllm.api.node_profile import ServingStatus
from perllm.nodes.serving_display import LOAD_S, ServingDisplay

IDLE = ServingStatus(ready="1/1", models=("m",), busy="0/8")
BUSY = IDLE.model_copy(update={"busy": "7/8", "foreign": 2})
LOADING = IDLE.model_copy(update={"ready": "0/1", "models": ()})


class Site:
    """A display, at a time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.written: list[ServingStatus | None] = []
        self.fleet = {"n"}
        self.display = ServingDisplay(
            lambda _, serving: self.written.append(serving),
            is_member=lambda node: node in self.fleet,
            now_s=lambda: self.now_s,
        )

    def show(self, serving: ServingStatus | None, after_s: float = 1.0) -> None:
        self.now_s += after_s
        self.display.show("n", serving)


@pytest.fixture
def site() -> Site:
    return Site()


def test_what_is_served_is_written_at_once_and_once(site: Site) -> None:
    for serving in (IDLE, IDLE, LOADING, IDLE):
        site.show(serving)

    assert site.written == [IDLE, LOADING, IDLE]


def test_load_is_written_once_a_minute(site: Site) -> None:
    site.show(IDLE)
    for second in range(int(3 * LOAD_S)):
        site.show(IDLE if second % 7 else BUSY)

    assert 2 <= len(site.written) <= 4


def test_the_last_load_is_written_in_the_end(site: Site) -> None:
    for serving in (IDLE, BUSY):
        site.show(serving)
    site.show(BUSY, after_s=LOAD_S)

    assert site.written == [IDLE, BUSY]


def test_a_node_without_an_agent_shows_nothing(site: Site) -> None:
    for serving in (None, IDLE, None, None):
        site.show(serving)

    assert site.written == [IDLE, None]


def test_a_profile_that_was_deleted_is_written_again(site: Site) -> None:
    site.show(IDLE)
    site.display.forget("n")
    site.show(IDLE)

    assert site.written == [IDLE, IDLE]


def test_what_is_served_on_a_node_that_joins_later_is_written_then(site: Site) -> None:
    site.fleet.clear()
    site.show(IDLE)
    assert site.written == []
    site.fleet.add("n")
    site.show(IDLE)
    assert site.written == [IDLE]
