"""A task that states its prompt runs as a request to a model server: the operator's side."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from perllm.api import names
from perllm.cluster.times import format_time
from perllm.controller.drift import GRACE_S, INTERVAL_S
from perllm.controller.lifecycle import MAX_REFUSALS, REPORT_S
from perllm.energy.settlement import SETTLING_S
from perllm.nodes.agents import FORMER_PATIENCE_S, lose_former_runs
from perllm.placement.flight import Residence
from perllm.placement.serving import NOTHING, Serving
from unit.controller.one_node_cluster import Cluster
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK

pytestmark = pytest.mark.looptime

SERVING = Serving(models=frozenset({"m"}), slots=2.0)
PATH = names.task_path("lab", "t")


class ServedCluster(Cluster):
    """A cluster whose node n has a model server for model m, with two slots."""

    def start(self) -> None:
        if self.running is None:
            self.scheduler.put_serving("n", SERVING)
        super().start()

    def ask(self, name: str = "t", **fields: Any) -> None:
        """Create a served task."""
        self.create(name, **{"template": None, "promptTokens": None, "prompt": "Which?", **fields})

    def report(self, name: str = "t", *, attempt: int = 1, end: str = "Answered", **fields: Any) -> None:
        """Report a run, as the agent of the node does."""
        now = datetime.fromtimestamp(self.now_s(), UTC).isoformat()
        start = datetime.fromtimestamp(self.now_s() - 1.0, UTC).isoformat()
        run = {"attempt": attempt, "end": end, "startTime": start, "endTime": now, **fields}
        result = {"result": {"text": "This."}} if end == "Answered" else {}
        status = {**self.status(name), "run": run, **result}
        item = self.api.store(names.task_path("lab", name), status=status)
        self.controller.on_task(item, deleted=False)

    @property
    def statuses(self) -> int:
        """How often a status was written."""
        return len(self.api.calls_of("PATCH"))


@pytest.fixture
async def cluster() -> AsyncIterator[ServedCluster]:
    cluster = ServedCluster()
    yield cluster
    cluster.stop()


async def test_a_prompt_is_placed_by_one_write_and_needs_no_pod(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(0.05)
    status = cluster.status()
    assert (status["phase"], status["nodeName"], status["attempts"], status["runsAs"]) == ("Running", "n", 1, "request")
    assert status["decisionRecord"]
    assert cluster.statuses == 1
    assert cluster.pods == []


async def test_a_request_that_was_not_counted_takes_no_slot_of_pods_either_when_it_is(cluster: ServedCluster) -> None:
    cluster.ask(deadline="1h")
    await asyncio.sleep(1)
    before = cluster.parts.ledger.flight("uid-t")
    cluster.scheduler.drop("uid-t")
    await asyncio.sleep(GRACE_S + 2 * INTERVAL_S)
    after = cluster.parts.ledger.flight("uid-t")
    assert before is not None
    assert after is not None
    assert (after.slots, after.resource) == (before.slots, before.resource)


async def test_an_answer_completes_the_task_and_is_learned(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(2)
    cluster.report(promptTokens=5, tokens=30, tokenSource="usage")
    await asyncio.sleep(0.05)
    status = cluster.status()
    assert (status["phase"], status["deadlineMet"], status["result"]["text"]) == ("Succeeded", True, "This.")
    assert status["observed"]["latency"] == pytest.approx(2.0, abs=0.1)
    assert status["observed"]["inference"] == 1.0
    assert len(cluster.parts.ledger) == 0
    await asyncio.sleep(SETTLING_S + 2)
    assert cluster.status()["observed"]["energyQuality"] == "coarse"
    assert cluster.parts.learner.summaries("n")["m"].count == 1


async def test_a_report_with_impossible_times_still_ends_the_task(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(2)
    cluster.report(tokens=30, endTime="2226-01-01T00:00:00Z", timeToFirstToken=-1.0)
    await asyncio.sleep(0.05)
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.status()["observed"]["latency"] == pytest.approx(2.0, abs=0.1)
    assert len(cluster.parts.ledger) == 0


async def test_the_length_of_a_prompt_is_estimated_by_what_servers_have_counted(cluster: ServedCluster) -> None:
    for number in range(3):
        cluster.ask(f"t-{number}", prompt="x" * 4000)
        await asyncio.sleep(1)
        cluster.report(f"t-{number}", promptTokens=4000, tokens=30, tokenSource="usage")
        await asyncio.sleep(1)
    cluster.ask("next", prompt="x" * 1000)
    await asyncio.sleep(1)
    (flight,) = (cluster.parts.ledger.flight(task) for task in cluster.parts.ledger.confirmed)
    assert flight is not None
    assert 800 < flight.inference.prompt_tokens < 1000


async def test_several_prompts_are_placed_as_a_whole_and_succeed_if_one_was_answered(cluster: ServedCluster) -> None:
    cluster.ask(prompt=None, prompts=["x" * 4000] * 3)
    await asyncio.sleep(2)
    (flight,) = (cluster.parts.ledger.flight(task) for task in cluster.parts.ledger.confirmed)
    assert flight is not None
    assert (flight.inference.prompt_tokens, flight.inference.prompts) == (3000, 3)
    cluster.report(tokens=30, prompts={"total": 3, "answered": 2, "failed": 1})
    await asyncio.sleep(SETTLING_S + 2)
    assert (cluster.status()["phase"], cluster.status()["message"]) == ("Succeeded", "1 of 3 prompts were not answered")
    assert cluster.parts.learner.summaries("n") == {}


async def test_a_task_waits_for_a_node_that_serves_its_model(cluster: ServedCluster) -> None:
    cluster.start()
    cluster.scheduler.put_serving("n", NOTHING)
    cluster.ask()
    await asyncio.sleep(2)
    assert cluster.status()["phase"] == "Pending"
    assert "no node satisfies: a ready model server of m (1 node)" in cluster.status()["message"]
    cluster.scheduler.put_serving("n", SERVING)
    await asyncio.sleep(0.1)
    assert cluster.status()["nodeName"] == "n"


async def test_requests_take_the_slots_of_the_server_and_pods_see_them_taken(cluster: ServedCluster) -> None:
    for name in ("a", "b", "c"):
        cluster.ask(name)
    cluster.create("pod")
    await asyncio.sleep(1.5)
    assert [cluster.status(name)["phase"] for name in ("a", "b", "c")] == ["Running", "Running", "Pending"]
    assert cluster.pods == []
    cluster.report("a", tokens=3)
    await asyncio.sleep(0.1)
    assert cluster.status("c")["phase"] == "Running"


async def test_foreign_requests_take_slots_too(cluster: ServedCluster) -> None:
    cluster.start()
    cluster.scheduler.put_serving("n", Serving(models=frozenset({"m"}), slots=2.0, foreign=2.0))
    cluster.ask()
    await asyncio.sleep(2)
    assert cluster.status()["phase"] == "Pending"
    cluster.scheduler.put_serving("n", SERVING)
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Running"


async def test_a_failed_request_uses_up_a_retry(cluster: ServedCluster) -> None:
    cluster.ask(retries=1)
    await asyncio.sleep(1)
    cluster.report(end="Failed", problem="the server aborted the answer")
    await asyncio.sleep(1.5)
    status = cluster.status()
    assert (status["attempts"], status["failedAttempts"], status["phase"]) == (2, [1], "Running")
    assert "run" not in status
    cluster.report(attempt=2, end="Failed", problem="the server aborted the answer")
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Failed"
    assert cluster.status()["message"] == "request 2 failed: the server aborted the answer"


async def test_a_server_that_does_not_accept_a_request_is_no_failure_of_the_task(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(1)
    cluster.report(end="Unavailable", problem="429")
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Pending"
    await asyncio.sleep(20)
    assert (cluster.status()["attempts"], cluster.status()["phase"]) == (2, "Running")
    assert "failedAttempts" not in cluster.status()


async def test_the_run_of_an_earlier_attempt_changes_nothing(cluster: ServedCluster) -> None:
    cluster.ask(retries=1)
    await asyncio.sleep(1)
    cluster.report(end="Failed")
    await asyncio.sleep(1.5)
    cluster.report(attempt=1)
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Running"


async def test_a_request_whose_agent_is_lost_is_made_again(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(1)
    cluster.scheduler.put_node(make_node("spare"), UPLINK)
    cluster.scheduler.put_serving("spare", SERVING)
    cluster.scheduler.put_serving("n", NOTHING)
    cluster.controller.lose_runs(lambda node: node == "n")
    await asyncio.sleep(1)
    status = cluster.status()
    assert (status["nodeName"], status["attempts"], status["phase"]) == ("spare", 2, "Running")
    assert len(cluster.parts.ledger) == 1


async def test_requests_of_agents_that_were_switched_off_do_not_run_for_ever(cluster: ServedCluster) -> None:
    cluster.ask(deadline="1h")
    await asyncio.sleep(1)
    cluster.scheduler.put_serving("n", NOTHING)
    without_agents = asyncio.create_task(lose_former_runs(cluster.controller.lose_runs))
    await asyncio.sleep(FORMER_PATIENCE_S - 5)
    assert cluster.status()["phase"] == "Running", "its agent may still be answering"
    await asyncio.sleep(10)
    assert cluster.status()["phase"] == "Pending"
    without_agents.cancel()


async def test_a_lost_request_that_perllm_fails_on_delays_no_other(
    cluster: ServedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ask("cursed")
    cluster.ask("other")
    await asyncio.sleep(1)
    end = cluster.scheduler.end

    def fail_on_one(task_id: str, node: str, output_tokens: float | None = None) -> Residence | None:
        if task_id == "uid-cursed":
            raise KeyError("no such thing")
        return end(task_id, node, output_tokens)

    monkeypatch.setattr(cluster.scheduler, "end", fail_on_one)
    cluster.scheduler.put_serving("n", NOTHING)
    cluster.controller.lose_runs(lambda node: node == "n")
    await asyncio.sleep(0.1)
    assert cluster.status("other")["phase"] == "Pending"
    monkeypatch.undo()
    await asyncio.sleep(2)
    assert (cluster.status("cursed")["phase"], len(cluster.parts.ledger)) == ("Pending", 0)


async def test_a_request_is_ended_at_the_deadline_if_the_task_asks_for_it(cluster: ServedCluster) -> None:
    cluster.ask(deadline="5s", onDeadlineMissed="Terminate")
    await asyncio.sleep(4.9)
    assert len(cluster.parts.ledger) == 1
    await asyncio.sleep(0.2)
    assert (cluster.status()["phase"], len(cluster.parts.ledger)) == ("Running", 0), "its slot is free at once"
    assert cluster.settlement.find_begun_s("n") == inf, "and it uses no energy any more"
    await asyncio.sleep(REPORT_S)
    assert cluster.status()["phase"] == "Failed"
    assert len(cluster.parts.learner.recent("n").ids) == 1, "it is learned as a miss"


async def test_a_request_that_ended_in_time_has_succeeded_though_its_report_is_seen_after_the_deadline(
    cluster: ServedCluster,
) -> None:
    cluster.ask(deadline="5s", onDeadlineMissed="Terminate")
    await asyncio.sleep(4.9)
    ended = format_time(cluster.now_s())
    await asyncio.sleep(REPORT_S)
    cluster.report(endTime=ended)
    await asyncio.sleep(0.1)
    assert (cluster.status()["phase"], cluster.status()["deadlineMet"]) == ("Succeeded", True)


async def test_a_restart_knows_what_was_placed_and_what_was_answered_meanwhile(cluster: ServedCluster) -> None:
    cluster.ask("runs")
    cluster.ask("ends")
    await asyncio.sleep(2)
    cluster.stop()
    now = format_time(cluster.now_s())
    run = {"attempt": 1, "end": "Answered", "startTime": now, "endTime": now, "tokens": 3}
    ends = names.task_path("lab", "ends")
    cluster.api.store(ends, status={**cluster.status("ends"), "run": run, "result": {"text": "Yes."}})
    restarted = ServedCluster(cluster.api, cluster.begun_s)
    restarted.start()
    for name in ("runs", "ends"):
        item = cluster.api.read(names.task_path("lab", name))
        assert item is not None
        restarted.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.2)
    assert (cluster.status("runs")["phase"], cluster.status("runs")["attempts"]) == ("Running", 1)
    assert cluster.status("ends")["phase"] == "Succeeded"
    assert len(restarted.parts.ledger) == 1
    restarted.stop()


async def test_a_status_does_not_replace_a_run_that_was_reported_in_the_meantime(cluster: ServedCluster) -> None:
    cluster.ask(deadline="5s")
    await asyncio.sleep(4)
    now = format_time(cluster.now_s())
    run = {"attempt": 1, "end": "Answered", "startTime": now, "endTime": now, "tokens": 3}
    item = cluster.api.store(PATH, status={**cluster.status(), "run": run, "result": {"text": "Yes."}})
    await asyncio.sleep(3)  # the deadline passes, which the status is to say, before the watch brings the run
    assert cluster.status()["run"]["tokens"] == 3
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.1)
    assert (cluster.status()["phase"], cluster.status()["deadlineMet"]) == ("Succeeded", True)


async def test_an_end_that_a_report_came_before_is_written_all_the_same(cluster: ServedCluster) -> None:
    cluster.ask(deadline="5s", onDeadlineMissed="Terminate")
    await asyncio.sleep(4)
    now = format_time(cluster.now_s())
    run = {"attempt": 1, "end": "Answered", "startTime": now, "endTime": now, "tokens": 3}
    item = cluster.api.store(PATH, status={**cluster.status(), "run": run, "result": {"text": "Yes."}})
    await asyncio.sleep(3)  # the task is ended at its deadline before the watch brings the run
    assert cluster.status()["phase"] == "Running"
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Failed"


async def test_a_request_is_made_again_until_the_deadline_however_often_servers_do_not_accept_it(
    cluster: ServedCluster,
) -> None:
    refusals = MAX_REFUSALS + 2
    cluster.ask(deadline="1h")
    for attempt in range(1, refusals + 1):
        await asyncio.sleep(65)
        assert (cluster.status()["phase"], cluster.status()["attempts"]) == ("Running", attempt)
        cluster.report(attempt=attempt, end="Unavailable", problem="429")
    await asyncio.sleep(65)
    cluster.report(attempt=refusals + 1)
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_server_is_asked_again_after_the_time_that_it_asked_for(cluster: ServedCluster) -> None:
    cluster.ask()
    await asyncio.sleep(1)
    cluster.report(end="Unavailable", problem="429", retryAfter=10.0)
    await asyncio.sleep(9.5)
    assert cluster.status()["phase"] == "Pending"
    await asyncio.sleep(2)
    assert cluster.status()["phase"] == "Running"


def report_unseen(cluster: ServedCluster, **metadata: Any) -> dict[str, Any]:
    """Report a run that no watch shows yet; return the task as the next list has it."""
    now = format_time(cluster.now_s())
    run = {"attempt": 1, "end": "Answered", "startTime": now, "endTime": now, "tokens": 3}
    status = {**cluster.status(), "run": run, "result": {"text": "Yes."}}
    return cluster.api.store(PATH, metadata=metadata, status=status)


@pytest.mark.parametrize("change", [{"suspend": True}, {"priority": 7}], ids=["suspended", "another priority"])
async def test_a_report_counts_though_the_spec_was_changed_before_it_is_seen(
    cluster: ServedCluster, change: dict[str, Any]
) -> None:
    cluster.ask()
    await asyncio.sleep(2)
    report_unseen(cluster)
    item = cluster.api.store(PATH, metadata={"generation": 2}, spec=change)
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(0.1)
    status = cluster.status()
    assert (status["phase"], status["attempts"], status["result"]) == ("Succeeded", 1, {"text": "Yes."})
    assert status["observedGeneration"] == 2


@pytest.mark.parametrize("seen_after_s", [0.0, 3.5], ids=["before the next status", "after it was denied"])
async def test_a_status_that_another_client_removes_while_the_next_one_waits_is_restored(
    cluster: ServedCluster, seen_after_s: float
) -> None:
    cluster.ask(deadline="5s")
    await asyncio.sleep(5 + REPORT_S + 0.1)
    assert "deadlineMet" not in cluster.status(), "it waits"
    item = cluster.api.store(PATH, status=None)
    await asyncio.sleep(seen_after_s)
    cluster.controller.on_task(item, deleted=False)
    await asyncio.sleep(4)
    status = cluster.status()
    assert (status["phase"], status["nodeName"], status["deadlineMet"]) == ("Running", "n", False)


PLACED = (
    "observedGeneration",
    "phase",
    "receivedTime",
    "podName",
    "nodeName",
    "tier",
    "runsAs",
    "attempts",
    "decision",
)


@pytest.mark.parametrize("field", [*PLACED, "decisionRecord", "conditions"])
async def test_a_field_that_another_client_removes_from_the_status_of_a_running_task_is_restored(
    cluster: ServedCluster, field: str
) -> None:
    cluster.ask()
    await asyncio.sleep(5)
    before = cluster.status()
    cluster.controller.on_task(cluster.api.store(PATH, status={field: None}), deleted=False)
    await asyncio.sleep(0.1)
    assert cluster.status() == before
    cluster.report()
    await asyncio.sleep(0.1)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_report_is_no_edit_and_a_watch_that_shows_all_that_was_written_leads_to_no_writes(
    cluster: ServedCluster,
) -> None:
    cluster.ask()
    await asyncio.sleep(5)
    cluster.report()
    await asyncio.sleep(SETTLING_S + 1)
    written = cluster.statuses
    for event in [one for _, _, one in cluster.api._history if one["metadata"]["name"] == "t"]:
        cluster.controller.on_task(event, deleted=False)
        await asyncio.sleep(1)
    assert cluster.statuses == written
