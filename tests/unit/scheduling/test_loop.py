import asyncio
from dataclasses import replace

import numpy as np
import pytest

from perllm.api.task import Tier
from perllm.controller.task import Task
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Arms, Choice, TaskFeatures
from perllm.scheduling.claims import CREATION_PATIENCE_S, MAX_UNBOUND_PODS, SIGHT_PATIENCE_S, UNBOUND_PATIENCE_S
from perllm.scheduling.denial import DenialCause
from perllm.scheduling.pending import Start
from unit.controller.samples import make_task
from unit.placement.cluster_of import CLOUD, EDGE, make_node, make_request
from unit.scheduling.dispatched import Dispatched
from unit.scheduling.schedulers import UPLINK


@pytest.mark.looptime
class TestLoop:
    async def test_creates_the_most_urgent_pods_first(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        on.add(make_task("calm"), make_task("hasty", deadline="30s"), make_task("important", priority=1))
        async with on.at_work():
            assert on.names == ["important", "hasty", "calm"]

    async def test_creates_only_pods_that_have_room_now(self) -> None:
        on = Dispatched(make_node("a", slots=2), make_node("b", slots=1))
        tasks = [make_task(f"t{number}") for number in range(5)]
        on.add(*tasks)
        async with on.at_work():
            assert on.names == ["t0", "t1", "t2"]
            assert on.scheduler.waiting == 2
            nodes = [on.bind(task) for task in tasks[:3]]
            await asyncio.sleep(0.1)
            assert len(on.created) == 3
            on.scheduler.end(tasks[0].uid, nodes[0])
            await asyncio.sleep(0.01)
            assert len(on.names) == 4

    async def test_counts_those_that_wait_only_because_all_nodes_are_full(self) -> None:
        on = Dispatched(make_node("a", slots=1))
        tasks = [make_task(f"t{number}", deadline="10s") for number in range(3)]
        on.add(*tasks)
        async with on.at_work():
            assert (on.scheduler.waiting, on.scheduler.waiting_for_room) == (2, 2)
            on.bind(tasks[0])
            on.late_s += 600
            await asyncio.sleep(1)
            assert on.scheduler.waiting_for_room == 2, "they are late, and wait for any node"
            on.scheduler.withdraw(tasks[1].key)
            assert on.scheduler.waiting_for_room == 1
            on.scheduler.put_node(make_node("a", slots=1, is_open=False), UPLINK)
            await asyncio.sleep(0.1)
            assert (on.scheduler.waiting, on.scheduler.waiting_for_room) == (1, 0)

    async def test_starts_what_has_room_behind_any_number_that_have_none(self) -> None:
        on = Dispatched(make_node("edge", Tier.EDGE, slots=1), make_node("cloud", Tier.CLOUD, slots=1))
        on.add(*(make_task(f"e{number}", tiers=["edge"], priority=9) for number in range(200)))
        on.add(make_task("c", tiers=["cloud"]))
        async with on.at_work():
            await asyncio.sleep(0.1)
            assert set(on.names) == {"e0", "c"}

    async def test_examines_waiting_tasks_once_for_all_nodes_that_join_together(self) -> None:
        on = Dispatched(make_node("a", is_open=False))
        on.add(*(make_task(f"t{number}") for number in range(5)))
        async with on.at_work():
            on.waited.clear()
            for name in "bcdefg":
                on.scheduler.put_node(make_node(name, is_open=False), UPLINK)
            await asyncio.sleep(0.05)
            assert sorted(on.waited) == ["t0", "t1", "t2", "t3", "t4"]

    async def test_reviews_waiting_tasks_without_being_notified(self) -> None:
        on = Dispatched(make_node("a", slots=1))
        on.add(make_task("t0"), make_task("t1"))
        async with on.at_work():
            on.bind(make_task("t0"))
            on.parts.ledger.release("uid-t0", on.now_s())
            await asyncio.sleep(2)
            assert on.names == ["t0", "t1"]

    async def test_bounds_the_pods_that_wait_for_kube_scheduler(self) -> None:
        on = Dispatched(make_node("a", slots=1000))
        tasks = [make_task(f"t{number:03}", deadline=f"{1000 + number}s") for number in range(60)]
        on.add(*tasks)
        async with on.at_work():
            await asyncio.sleep(5)
            assert on.names == [task.name for task in tasks[:MAX_UNBOUND_PODS]]
            on.bind(tasks[7])
            await asyncio.sleep(0.01)
            assert len(on.created) == MAX_UNBOUND_PODS + 1

    async def test_is_not_held_up_by_pods_that_kube_scheduler_never_places(self) -> None:
        on = Dispatched(make_node("a", slots=1000))
        on.add(*[make_task(f"t{number:03}", deadline=f"{1000 + number}s") for number in range(MAX_UNBOUND_PODS + 5)])
        async with on.at_work():
            await asyncio.sleep(UNBOUND_PATIENCE_S + 2)
            assert len(on.created) == MAX_UNBOUND_PODS + 5

    async def test_lets_a_task_pass_that_fits_where_a_more_urgent_one_does_not(self) -> None:
        on = Dispatched(make_node("e", EDGE, slots=1), make_node("c", CLOUD, slots=1))
        on.add(*[make_task(f"edge{number}", tiers=["edge"], priority=9) for number in range(3)])
        on.add(make_task("cloud", tiers=["cloud"]))
        async with on.at_work():
            assert on.names == ["edge0", "cloud"]

    async def test_creates_one_pod_per_attempt_however_often_it_is_asked(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        task = make_task()
        async with on.at_work():
            for attempt in (1, 1, 2, 2):
                on.add(task, attempt=attempt)
                await asyncio.sleep(0.01)
            assert on.created == [("t", 1), ("t", 2)]

    async def test_forgets_a_task_that_was_removed_and_its_reservation(self) -> None:
        on = Dispatched(make_node("a", slots=1))
        task, doomed = make_task("t0"), make_task("t1")
        on.add(task, doomed)
        async with on.at_work():
            on.scheduler.withdraw(doomed.key)
            on.scheduler.withdraw(task.key)
            await asyncio.sleep(2)
            assert (on.names, on.scheduler.waiting, len(on.parts.ledger)) == (["t0"], 0, 0)

    async def test_creates_the_pods_that_it_was_about_to_when_it_is_started_again(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        on.answer_s = lambda _: 10.0
        on.add(make_task())
        async with on.at_work():
            await asyncio.sleep(1)
        async with on.at_work():
            await asyncio.sleep(30)
            assert on.created == [("t", 1), ("t", 1)]
            assert list(on.started_s) == ["lab/t"]

    async def test_postpones_a_task_that_placement_fails_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on = Dispatched(make_node("a", slots=9))
        on.add(make_task("odd", model="odd"), make_task("other"))
        choose = on.parts.policy.choose

        def fail(task: TaskFeatures, arms: Arms) -> Choice:
            if task.model == "odd":
                raise ValueError("odd task")
            return choose(task, arms)

        monkeypatch.setattr(on.parts.policy, "choose", fail)
        async with on.at_work():
            await asyncio.sleep(120)
            assert on.names == ["other"]
            name, denial = on.denied[0]
            assert (name, denial.cause, denial.message) == ("odd", DenialCause.FAULT, "ValueError: odd task")
            assert 3 < len(on.denied) < 15

    async def test_uses_a_priority_that_was_changed_while_the_task_waits(self) -> None:
        on = Dispatched(make_node("a", slots=1))
        on.add(make_task("first"), make_task("second"), make_task("third"))
        async with on.at_work():
            on.bind(make_task("first"))
            on.add(replace(make_task("third", priority=5), generation=2))
            on.scheduler.end("uid-first", "a")
            await asyncio.sleep(0.05)
            assert on.names == ["first", "third"]

    async def test_creates_a_pod_again_that_was_never_seen(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        on.shows_pods = False
        on.add(make_task())
        async with on.at_work():
            await asyncio.sleep(SIGHT_PATIENCE_S - 1)
            on.shows_pods = True
            await asyncio.sleep(3 * SIGHT_PATIENCE_S)
            assert on.names == ["t", "t"]

    async def test_waits_for_the_sight_of_a_pod_that_is_bound(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        on.shows_pods = False
        task = make_task()
        on.add(task)
        async with on.at_work():
            decision = on.scheduler.settle(task.uid, "a")
            assert decision is not None
            on.scheduler.confirm(decision, 1.0)
            await asyncio.sleep(3 * SIGHT_PATIENCE_S)
            assert (on.names, len(on.parts.ledger)) == (["t"], 1)

    async def test_rejects_what_is_hopeless_if_the_task_says_so(self) -> None:
        on = Dispatched(make_node("a", slots=9))
        hopeless = {"deadline": "1ms"}
        on.add(make_task("strict", onInfeasible="Reject", **hopeless), make_task("relaxed", **hopeless))
        async with on.at_work():
            assert (on.rejected, on.names, on.scheduler.waiting) == (["strict"], ["relaxed"], 0)


def hasty(name: str, left_s: float = 8.0, **spec: object) -> Task:
    """Return a task that is in time on an H100 only."""
    return make_task(name, deadline=f"{left_s}s", **spec)


@pytest.mark.looptime
class TestLateBinding:
    """Node fast has one slot, node slow is too slow for the tasks; cs-ucb decides."""

    @staticmethod
    def busy() -> Dispatched:
        on = Dispatched(
            make_node("fast", slots=1, gpu_type="H100"),
            make_node("slow", slots=9, gpu_type="Orin"),
            policy=CsUcb(),
        )
        for name in ("fast", "slow"):
            on.parts.learner.warm(name, "m")
        on.scheduler.decide(make_request("busy"), ["fast"])
        busy = on.scheduler.settle("busy", "fast")
        assert busy is not None
        on.scheduler.confirm(busy, 1.0)
        return on

    async def test_waits_for_the_node_that_can_do_it_in_time_and_takes_it_when_it_is_free(self) -> None:
        on = self.busy()
        on.add(hasty("t"))
        async with on.at_work():
            assert (on.names, on.waited, on.parts.ledger.loads(np.arange(2), on.now_s()).waiting.tolist()) == (
                [],
                ["t"],
                [1, 0],
            )
            assert on.scheduler.waiting_for_room == 1
            on.scheduler.end("busy", "fast")
            await asyncio.sleep(0.02)
            assert (on.names, on.parts.ledger.loads(np.arange(2), on.now_s()).waiting.tolist()) == (["t"], [0, 0])
            flight = on.parts.ledger.flight("uid-t")
            assert flight is not None
            assert flight.row == 0

    async def test_after_the_deadline_takes_whatever_has_room(self) -> None:
        on = self.busy()
        on.add(hasty("t"), hasty("strict", onInfeasible="Reject"))
        async with on.at_work():
            assert on.names == []
            on.late_s += 60
            await asyncio.sleep(1)
            assert (on.names, on.rejected) == (["t"], ["strict"])

    async def test_starts_a_task_before_others_that_wait_for_a_better_node(self) -> None:
        on = self.busy()
        on.add(*(hasty(f"hasty{number}", priority=9) for number in range(2)), make_task("calm", deadline="10m"))
        async with on.at_work():
            await asyncio.sleep(0.1)
            assert on.names == ["calm"]

    async def test_forgets_what_a_removed_task_waited_for(self) -> None:
        on = self.busy()
        task = hasty("t")
        on.add(task)
        async with on.at_work():
            on.scheduler.withdraw(task.key)
            assert on.parts.ledger.loads(np.arange(2), on.now_s()).waiting.tolist() == [0, 0]


@pytest.mark.looptime
async def test_a_node_is_sought_once_for_a_task_from_its_arrival_to_its_binding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on = Dispatched(make_node("a", slots=9), make_node("b", slots=9))
    choose, sought = on.parts.policy.choose, []
    monkeypatch.setattr(on.parts.policy, "choose", lambda *args: sought.append(args) or choose(*args))
    tasks = [make_task(f"t{number}") for number in range(5)]
    on.add(*tasks)
    async with on.at_work():
        for task in tasks:
            on.bind(task)
        assert len(sought) == len(tasks)


@pytest.mark.looptime
async def test_a_decision_whose_node_has_changed_since_is_made_again() -> None:
    on = Dispatched(make_node("a", slots=9), make_node("b", slots=9))
    task = make_task()
    on.add(task)
    async with on.at_work():
        chosen = on.parts.fleet.nodes[on.scheduler.decide(task.to_request(), ["a", "b"]).node or ""]
        on.scheduler.put_node(replace(chosen, is_open=False), UPLINK)
        assert on.bind(task) != chosen.name


@pytest.mark.looptime
async def test_the_pod_of_an_earlier_attempt_that_was_never_seen_is_not_waited_for() -> None:
    """It may end while no watch is open: the next attempt is all that counts."""
    on = Dispatched(make_node("a", slots=9))
    on.shows_pods = False
    task = make_task()
    on.add(task)
    async with on.at_work():
        on.add(task, attempt=2)
        await asyncio.sleep(0.1)
        assert on.created == [("t", 1), ("t", 2)]
        on.scheduler.withdraw(task.key)
        await asyncio.sleep(2 * SIGHT_PATIENCE_S)
        assert on.scheduler.waiting == 0
        assert on.created == [("t", 1), ("t", 2)]


@pytest.mark.looptime
async def test_a_task_that_kube_scheduler_asks_about_after_its_binding_stays_in_flight_where_it_is() -> None:
    on = Dispatched(make_node("a"), make_node("b"))
    task = make_task()
    on.add(task)
    async with on.at_work():
        node = on.bind(task)
        on.scheduler.put_node(make_node(node, slots=0), UPLINK)
        other = on.scheduler.decide(task.to_request(), ["a", "b"]).node
        assert other not in (None, node)
        on.scheduler.cancel(task.uid)
        flight = on.parts.ledger.flight(task.uid)
        assert flight is not None
        assert flight.row == on.parts.fleet.row(node)


@pytest.mark.looptime
async def test_a_start_that_is_abandoned_does_not_end_the_next_reservation() -> None:
    on, task = Dispatched(make_node("a")), make_task().to_pending(1)
    on.scheduler.submit(task)
    on.scheduler.due()
    on.scheduler.note_abandoned(task)
    await asyncio.sleep(CREATION_PATIENCE_S - 0.5)
    on.scheduler.due()
    await asyncio.sleep(1.0)
    on.scheduler.due()
    assert task.uid in on.parts.ledger


@pytest.mark.looptime
async def test_a_start_that_is_abandoned_costs_its_namespace_nothing() -> None:
    on, task = Dispatched(make_node("a", slots=2)), make_task().to_pending(1)
    on.add(make_task("o1", namespace="other"))
    on.scheduler.due()
    on.scheduler.submit(task)
    for _ in range(2):
        on.scheduler.due()
        on.scheduler.note_abandoned(task)
    on.add(make_task("o2", namespace="other"))
    assert [action.task.key for action in on.scheduler.due() if isinstance(action, Start)] == [task.key]
