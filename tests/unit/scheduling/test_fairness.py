"""A bystander's first task in a namespace of its own, while another namespace behaves badly."""

import asyncio

import pytest

from perllm.controller.task import Task
from perllm.policy.contextual import CsUcb
from perllm.scheduling.claims import CREATION_PATIENCE_S
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.shares import LEAD_S
from unit.controller.samples import make_task
from unit.placement.cluster_of import make_node
from unit.scheduling.dispatched import Dispatched

pytestmark = pytest.mark.looptime

QUOTA = PodDenial(DenialCause.QUOTA, "exceeded quota: none")
RUN_S = 5.0
AT_ONCE_S = 0.5


def make_cluster(slots: int = 4) -> Dispatched:
    """Return two nodes where every pod runs for RUN_S."""
    on = Dispatched(make_node("a", slots=slots / 2), make_node("b", slots=slots / 2), policy=CsUcb())
    on.runs_s = lambda _: RUN_S
    return on


def make_others(count: int, **spec: object) -> list[Task]:
    spec = {"deadline": "1h", **spec}
    return [make_task(f"other-{number}", namespace="other", **spec) for number in range(count)]


def bystander(**spec: object) -> Task:
    return make_task("bystander", namespace="mine", **{"deadline": "1h", **spec})


async def test_a_hundred_denied_tasks_delay_no_other() -> None:
    on = make_cluster()
    on.answer = lambda task: QUOTA if task.namespace == "other" else None
    async with on.at_work():
        on.add(*make_others(100, priority=1000))
        await asyncio.sleep(20)
        assert await on.wait_s(bystander(), limit_s=200) < AT_ONCE_S


async def test_a_webhook_that_hangs_delays_its_own_namespace_only() -> None:
    on = make_cluster()
    on.answer_s = lambda task: 30.0 if task.namespace == "other" else 0.0
    on.answer = lambda task: (
        PodDenial(DenialCause.WEBHOOK, "failed calling webhook") if task.namespace == "other" else None
    )
    async with on.at_work():
        on.add(*make_others(100, priority=1000))
        await asyncio.sleep(5)
        # Creations that hang hold their slots for this long, which on a small fleet are all slots.
        assert await on.wait_s(bystander(), limit_s=200) < CREATION_PATIENCE_S


async def test_pods_that_no_node_may_take_delay_their_own_namespace_only() -> None:
    on = make_cluster(slots=200)
    on.runs_s = lambda task: RUN_S if task.namespace == "mine" else None
    async with on.at_work():
        on.add(*make_others(100, priority=1000))
        await asyncio.sleep(1)
        assert await on.wait_s(bystander(), limit_s=200) < AT_ONCE_S


async def test_slots_reserved_for_a_pod_that_no_node_may_take_are_released_once_that_is_known() -> None:
    on = make_cluster()
    on.runs_s = lambda task: RUN_S if task.namespace == "mine" else None
    others = make_others(4)
    async with on.at_work():
        on.add(*others)
        await asyncio.sleep(1)
        for task in others:
            on.scheduler.release_room(task.key)
        assert await on.wait_s(bystander(), limit_s=200) < AT_ONCE_S


@pytest.mark.parametrize("spec", [{}, {"outputTokens": 20_000}, {"tiers": ["edge"]}])
async def test_a_backlog_of_hundreds_of_tasks_lets_the_bystander_have_the_next_room(spec: dict[str, object]) -> None:
    on = make_cluster()
    async with on.at_work():
        on.add(*make_others(300, **spec))
        await asyncio.sleep(21)
        assert await on.wait_s(bystander(), limit_s=600) <= RUN_S + AT_ONCE_S


async def test_a_backlog_of_hundreds_of_tasks_does_not_get_the_bystander_rejected() -> None:
    on = make_cluster(slots=8)
    async with on.at_work():
        on.add(*make_others(300))
        await asyncio.sleep(21)
        asked_s = on.now_s()
        await on.wait_s(bystander(deadline="60s", received_s=asked_s, onInfeasible="Reject"), limit_s=10)


async def test_the_highest_priority_is_ahead_by_a_bounded_amount_of_work() -> None:
    on = make_cluster(slots=2)
    on.runs_s = lambda _: 1.0
    others = make_others(200, priority=1000)
    async with on.at_work():
        on.add(*others)
        await asyncio.sleep(5.2)
        before = len(on.started_s)
        await on.wait_s(bystander(), limit_s=2000)
        placement = on.scheduler.decide(others[0].to_request(), ["a", "b"])
        assert (
            len(on.started_s) - before
        ) * placement.outlook.times.work_s.min() <= LEAD_S + placement.outlook.times.work_s.max()


async def test_a_namespace_of_twice_the_weight_is_given_twice_as_much() -> None:
    on = Dispatched(make_node("a", slots=1), weights={"heavy": 2.0})
    on.runs_s = lambda _: 1.0
    on.add(*(make_task(f"{one}-{number}", namespace=one) for number in range(60) for one in ("heavy", "light")))
    async with on.at_work():
        await asyncio.sleep(60)
    heavy, light = (sum(name.startswith(one) for name in on.names) for one in ("heavy", "light"))
    assert heavy == pytest.approx(2 * light, abs=2)
