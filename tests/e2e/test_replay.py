"""A trace of requests as tasks: what users, logs and metrics show, against what really happened."""

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import run
from typing import Any

import orjson
import pytest
import pytest_asyncio

from e2e.requests import trace_requests
from e2e.stage import Stage, open_stage, phases
from perllm.api import names
from perllm.api.task_status import EnergyQuality
from perllm.cluster.client import Object
from perllm.scheduling.order import TaskRanks
from perllm.scheduling.pending import PendingTask
from perllm.scheduling.ranking import Rank
from perllm.settings.nodes import NodeSettings
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.report.results import energy_errors, join_runs, summarize
from perllm_lab.simulator.journal_replay import replay_journal
from perllm_lab.workload.requests import Request

SYNTHETIC_TASKS = 200
TRACE_TASKS = 300
SPEED = 3.0
MAX_MEDIAN_ENERGY_ERROR = 0.15
PATIENCE_S = 40.0
"""So that no sample is given up because a scrape was late."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished replay whose objects are all still there."""

    stage: Stage
    requests: list[Request]
    tasks: dict[str, Object]
    created_s: dict[str, float]

    @property
    def succeeded(self) -> set[str]:
        return {name for name, task in self.tasks.items() if task["status"]["phase"] == "Succeeded"}

    @property
    def placed(self) -> set[str]:
        return {name for name, task in self.tasks.items() if task["status"].get("nodeName")}


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    """Metrics are read every 1.5 s of the hardware's time; many runs last no longer than a second or two of it."""
    config = {"energy_patience_s": PATIENCE_S}
    return LabSettings("modern", SPEED, scrape_interval_s=0.5, records=True, operator_config=config)


@pytest.fixture(scope="module")
def requests(lab: Lab) -> list[Request]:
    return trace_requests(lab.scenario, synthetic=SYNTHETIC_TASKS, limit=TRACE_TASKS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replayed(lab: Lab, requests: list[Request]) -> AsyncIterator[Replayed]:
    """Is not cleared: the lab ends with this module."""
    async with open_stage(lab, "replay") as stage:
        replay = stage.replay(requests)
        await replay.run(timeout_s=120.0)
        assert await replay.wait_measured(timeout_s=60.0), "the energy of some tasks is not settled"
        yield Replayed(stage, requests, dict(replay.objects), replay.created_s)


async def test_every_task_succeeds_and_none_is_lost(replayed: Replayed) -> None:
    assert set(replayed.tasks) == {request.name for request in replayed.requests}
    assert phases(replayed.tasks) == Counter(Succeeded=len(replayed.requests))


async def test_no_task_runs_twice(replayed: Replayed) -> None:
    assert replayed.stage.completed_runs() == Counter(dict.fromkeys(replayed.succeeded, 1))
    assert {line["outcome"] for line in replayed.stage.truth()} == {"Succeeded"}


async def test_the_decision_record_arrives_with_the_binding(replayed: Replayed) -> None:
    bound = [pod for states in replayed.stage.seen.values() for pod in states if pod["spec"].get("nodeName")]
    assert len({pod["metadata"]["name"] for pod in bound}) == len(replayed.placed)
    without = [
        pod["metadata"]["name"] for pod in bound if names.DECISION_ANNOTATION not in pod["metadata"]["annotations"]
    ]
    assert without == []


async def test_every_decision_is_in_the_log_the_status_and_one_event(replayed: Replayed) -> None:
    decisions, events = replayed.stage.decisions(), await replayed.stage.events("Placed")
    for name in replayed.placed:
        task = replayed.tasks[name]
        status = task["status"]
        (line,) = decisions[name]
        (event,) = events[name]
        assert (line["node"], line["uid"]) == (status["nodeName"], task["metadata"]["uid"])
        assert status["nodeName"] in event["note"]
        assert status["decision"]["predictedLatency"] > 0
        assert status["decision"]["predictedEnergy"] > 0


async def test_energy_through_prometheus_is_near_the_truth(replayed: Replayed) -> None:
    rates = {tier.value: value * 1e-6 for tier, value in NodeSettings().transmission_microjoule_per_bit.items()}
    truth = replayed.stage.truth()
    errors = energy_errors(replayed.tasks.values(), truth, rates)
    runs = join_runs(replayed.requests, replayed.created_s, truth, replayed.stage.lab.settings.speed)
    print(f"\n{len(replayed.tasks)} tasks, {replayed.stage.lab.settings}\n{summarize(runs)}\nall: {errors}")
    for quality in EnergyQuality:
        some = [one for one in replayed.tasks.values() if one["status"]["observed"]["energyQuality"] == quality]
        print(f"{quality}: {energy_errors(some, truth, rates)}")
    assert errors.missing == 0
    assert errors.median < MAX_MEDIAN_ENERGY_ERROR


async def test_every_success_is_learned_once(replayed: Replayed) -> None:
    stage = replayed.stage
    with suppress(AssertionError):
        await stage.wait_learned(len(replayed.succeeded), timeout_s=10)
    counts = {
        name: sum(model["count"] for model in profile["status"]["models"])
        for name, profile in (await stage.profiles()).items()
    }
    assert counts == Counter(replayed.tasks[name]["status"]["nodeName"] for name in replayed.succeeded)
    assert await stage.metric("perllm_outcomes_learned_total") == len(replayed.succeeded)


async def test_kubectl_shows_all_columns(replayed: Replayed) -> None:
    table = await replayed.stage.kubectl("get", "llmtasks", "--namespace", replayed.stage.namespace)
    header, *rows = (line.split() for line in table.splitlines())
    assert header == ["NAME", "PHASE", "MODEL", "NODE", "TIER", "DEADLINE", "LATENCY(S)", "MET", "ENERGY(J)", "AGE"]
    assert len(rows) == len(replayed.tasks)
    assert [row for row in rows if len(row) != len(header) or "<none>" in row] == []


async def test_own_metrics_agree_with_the_objects(replayed: Replayed) -> None:
    stage, statuses = replayed.stage, [task["status"] for task in replayed.tasks.values()]
    assert await stage.metric("perllm_decisions_total") == len(replayed.placed)
    assert await stage.metric("perllm_tasks_finished_total", phase="Succeeded") == len(replayed.succeeded)
    assert await stage.metric("perllm_tasks_in_flight") == 0
    assert await stage.metric("perllm_tasks_waiting") == 0
    for met in (True, False):
        expected = sum(status["deadlineMet"] is met for status in statuses)
        assert await stage.metric("perllm_deadlines_total", met=str(met).lower()) == expected
    for quality, count in Counter(status["observed"]["energyQuality"] for status in statuses).items():
        assert await stage.metric("perllm_energy_measurements_total", quality=quality) == count


def test_what_the_operator_recorded_is_decided_the_same_way_in_the_simulator(
    replayed: Replayed, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By task, verdict, node and score; and what was recorded is what happened."""
    journal = tmp_path / "decisions.jsonl"
    journal.write_bytes(lab.journal.read_bytes())
    settled = {line["with"][0]: line["result"] for line in read_lines(journal) if line.get("input") == "settle"}
    bound = {task["metadata"]["uid"]: task["status"] for task in replayed.tasks.values()}
    assert {uid: settled[uid]["node"] for uid in bound} == {uid: status["nodeName"] for uid, status in bound.items()}
    assert [settled[uid]["score"] for uid in bound] == pytest.approx(
        [status["decision"]["score"] for status in bound.values()], rel=1e-4, abs=1e-4
    )

    done = run([sys.executable, "-m", "perllm_lab.cli", "replay", str(journal)], capture_output=True, text=True)
    print(f"\nreplay of what the operator recorded: {done.stdout}{done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr

    def rank_by_deadline(ranks: TaskRanks, task: PendingTask) -> Rank:
        return -task.priority, task.request.due_s

    monkeypatch.setattr(TaskRanks, "rank", rank_by_deadline)
    assert replay_journal(journal).differences != []


def read_lines(journal: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in journal.read_bytes().splitlines() if line.endswith(b"}")]
