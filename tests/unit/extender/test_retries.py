"""When kube-scheduler is made to retry the pods that the extender rejected; nodes take what `room` says."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perllm.api import names
from perllm.cluster.client import ApiError
from perllm.extender import retries
from perllm.extender.retries import GONE_S, LOOK_S, MAX_EXAMINED, MAX_PAUSE_S, MAX_RETRIED, Retries
from perllm.placement.request import PlacementRequest
from unit.cluster.fake_api import FakeApiServer
from unit.cluster.queues import make_guard, make_writes
from unit.placement.cluster_of import CLOUD, EDGE, make_request

pytestmark = pytest.mark.looptime

EVERYWHERE, IN_CLOUD = frozenset((EDGE, CLOUD)), frozenset((CLOUD,))


class Waiting:
    """Rejected pods, and which tiers have room."""

    def __init__(self) -> None:
        self.api, self.writes = FakeApiServer(), make_writes()
        self.room: set[str] = set()
        self.asked = 0
        self.broken_size = -1
        self.tasks: list[asyncio.Task[None]] = []
        now_s = asyncio.get_running_loop().time
        self.retries = Retries(
            self.api,  # type: ignore[arg-type]
            self.writes,
            has_room=self.has_room,
            guard=make_guard(),
            now_s=now_s,
            unix_now=lambda: 1000.0 + now_s(),
        )

    def has_room(self, request: PlacementRequest) -> bool:
        self.asked += 1
        if request.input_bytes == self.broken_size:
            raise ArithmeticError("bug")
        return bool(request.tiers & self.room)

    def reject(
        self, name: str, tiers: frozenset[str] = EVERYWHERE, due_s: float = 1060.0, *, tokens: int = 100, size: int = 0
    ) -> None:
        self.api.store(f"/api/v1/namespaces/lab/pods/{name}")
        request = make_request(f"uid-{name}", tiers=tiers, due_s=due_s, output_tokens=tokens, input_bytes=size)  # type: ignore[arg-type]
        self.retries.note_rejected(f"uid-{name}", f"lab/{name}", request)

    async def run(self, seconds: float) -> None:
        if not self.tasks:
            self.tasks = [asyncio.create_task(one.run()) for one in (self.writes, self.retries)]
        await asyncio.sleep(seconds)

    @property
    def retried(self) -> list[str]:
        """The pods that were labelled, in order."""
        return [path.removeprefix("/api/v1/namespaces/lab/pods/") for path, _ in self.api.calls_of("PATCH")]


@pytest.fixture
async def waiting() -> AsyncIterator[Waiting]:
    waiting = Waiting()
    yield waiting
    for task in waiting.tasks:
        task.cancel()


async def test_a_pod_is_retried_by_a_label_once_there_is_room(waiting: Waiting) -> None:
    waiting.reject("p")
    await waiting.run(10)
    assert waiting.retried == []
    waiting.room = {EDGE}
    await waiting.run(2 * LOOK_S)
    ((path, change),) = waiting.api.calls_of("PATCH")
    assert path == "/api/v1/namespaces/lab/pods/p/status"
    assert change["metadata"]["uid"] == "uid-p"
    assert list(change["metadata"]["labels"]) == [names.RETRY_LABEL]


async def test_a_pod_that_is_forgotten_is_not_retried(waiting: Waiting) -> None:
    waiting.reject("p")
    waiting.retries.forget("uid-p")
    waiting.room = {EDGE}
    await waiting.run(5)
    assert waiting.retried == []


async def test_a_pod_that_kube_scheduler_still_rejects_is_retried_after_growing_pauses(waiting: Waiting) -> None:
    waiting.room = {EDGE}
    waiting.reject("p")
    await waiting.run(60)
    assert 4 <= len(waiting.retried) <= 6
    await waiting.run(10 * MAX_PAUSE_S)
    assert len(waiting.retried) <= 6 + 10


async def test_a_pod_that_waits_for_days_keeps_no_other_from_being_retried(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "LOOK_S", MAX_PAUSE_S)
    waiting.room = {EDGE}
    waiting.reject("stuck")
    await waiting.run(2000 * MAX_PAUSE_S)
    waiting.reject("p", due_s=1061.0)
    await waiting.run(2 * MAX_PAUSE_S)
    assert waiting.retried[-1] == "p/status"


async def test_a_pod_that_perllm_fails_on_keeps_no_other_from_being_retried(waiting: Waiting) -> None:
    waiting.room, waiting.broken_size = {EDGE}, 7
    waiting.reject("broken", size=7)
    waiting.reject("p", due_s=1061.0)
    await waiting.run(2 * LOOK_S)
    assert waiting.retried == ["p/status"]


async def test_pauses_begin_again_once_there_was_no_room(waiting: Waiting) -> None:
    waiting.room = {EDGE}
    waiting.reject("p")
    await waiting.run(60)
    known = len(waiting.retried)
    waiting.room = set()
    await waiting.run(2 * LOOK_S)
    waiting.room = {EDGE}
    await waiting.run(2 * LOOK_S)
    assert len(waiting.retried) == known + 1


async def test_the_most_urgent_pods_come_first_and_few_at_a_time(waiting: Waiting) -> None:
    for number in range(3 * MAX_RETRIED):
        waiting.reject(f"p{number}", due_s=2000.0 - number)
    waiting.room = {EDGE}
    await waiting.run(1.5 * LOOK_S)
    assert waiting.retried == [f"p{3 * MAX_RETRIED - 1 - number}/status" for number in range(MAX_RETRIED)]


async def test_of_pods_that_ask_for_the_same_room_one_is_examined(waiting: Waiting) -> None:
    for number in range(100):
        waiting.reject(f"p{number}", IN_CLOUD, due_s=1000.0 + number, tokens=100 + number)
    waiting.reject("q", due_s=9000.0)
    waiting.room = {EDGE}
    await waiting.run(1.5 * LOOK_S)
    assert (waiting.retried, waiting.asked) == (["q/status"], 2)


async def test_urgent_pods_without_room_keep_none_from_the_room_that_there_is(waiting: Waiting) -> None:
    for number in range(3 * MAX_EXAMINED):
        waiting.reject(f"p{number}", IN_CLOUD, due_s=1000.0 + number, size=number)
    waiting.reject("q", due_s=9000.0)
    waiting.room = {EDGE}
    await waiting.run(4.5 * LOOK_S)
    assert waiting.retried == ["q/status"]
    assert waiting.asked <= 4 * MAX_EXAMINED


async def test_many_pods_that_only_kube_scheduler_rejects_keep_none_of_another_kind_from_its_retry(
    waiting: Waiting,
) -> None:
    for number in range(100):
        waiting.reject(f"p{number}", due_s=1000.0 + number)
    waiting.reject("q", due_s=9000.0, size=1)
    waiting.room = {EDGE}
    await waiting.run(1.5 * LOOK_S)
    assert "q/status" in waiting.retried
    assert len(waiting.retried) == MAX_RETRIED - MAX_RETRIED // 2 + 1


async def test_pods_that_kube_scheduler_still_rejects_cost_one_decision_a_look(waiting: Waiting) -> None:
    waiting.room = {EDGE}
    for number in range(100):
        waiting.reject(f"p{number}", tokens=100 + number)
    await waiting.run(20.25 * LOOK_S)
    assert len(waiting.retried) > 100
    assert waiting.asked == 20


async def test_a_pod_that_may_go_nowhere_is_retried_only_when_it_has_changed(waiting: Waiting) -> None:
    waiting.api.store("/api/v1/namespaces/lab/pods/p")
    waiting.retries.note_rejected("uid-p", "lab/p", None)
    waiting.room = {EDGE, CLOUD}
    await waiting.run(10)
    assert waiting.retried == []
    waiting.retries.retry("uid-p")
    await waiting.run(0.1)
    assert waiting.retried == ["p/status"]


async def test_a_pod_that_is_gone_is_forgotten(waiting: Waiting) -> None:
    waiting.reject("p")
    waiting.api.fail("PATCH", ApiError(404, "NotFound", "pods p not found"))
    waiting.room = {EDGE}
    await waiting.run(2 * LOOK_S)
    assert "uid-p" not in waiting.retries


async def test_a_pod_that_kube_scheduler_does_not_ask_about_any_more_is_forgotten(waiting: Waiting) -> None:
    for name in ("gone", "unreadable"):
        waiting.reject(name)
    waiting.retries.note_rejected("uid-unreadable", "lab/unreadable", None)
    await asyncio.sleep(GONE_S - 1)
    waiting.reject("p")
    assert "uid-gone" in waiting.retries
    await asyncio.sleep(1)
    waiting.reject("p")
    assert [f"uid-{name}" in waiting.retries for name in ("gone", "unreadable", "p")] == [False, False, True]
