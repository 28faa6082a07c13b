"""Prometheus is down for a while: placement goes on, missing figures are reported as missing, never as zero."""

from collections import Counter

from e2e.stage import Stage, condition, wait_until
from perllm.cluster.client import Object
from perllm.learning.node_state import read_state

TASKS = 12


async def test_tasks_run_without_metrics_and_telemetry_recovers_by_itself(stage: Stage) -> None:
    learned = await stage.learned()
    energies = await _count_energies(stage)
    before = await _run(stage, "before")
    _assert_measured(before)
    await wait_until(lambda: _sees(stage), timeout_s=45)
    caught = await stage.create_many("caught", TASKS, output_tokens=400)
    log_start = stage.lab.operator_log.stat().st_size
    await stage.lab.prometheus.kill()
    try:
        await wait_until(lambda: _is_blind(stage), timeout_s=30, describe=lambda: "figures still count as fresh")
        during = await _run(stage, "during")
        _assert_blind(during)
        _assert_never_zero(await stage.wait_all_settled(caught))
        assert await stage.metric("perllm_telemetry_up") == 0
    finally:
        await stage.lab.prometheus.start()
    await wait_until(lambda: _sees(stage), timeout_s=45, describe=lambda: "telemetry does not recover")
    logged = _lines_about_telemetry(stage, log_start)
    after = await _run(stage, "after")
    _assert_measured(after)
    assert [line["level"] for line in logged] == ["WARNING", "INFO"]
    await stage.wait_learned(learned + 4 * TASKS, timeout_s=40)
    assert await _count_energies(stage) == energies + _count_measured(await stage.tasks())


async def _run(stage: Stage, prefix: str) -> dict[str, Object]:
    return await stage.wait_all_settled(await stage.create_many(prefix, TASKS))


def _assert_measured(tasks: dict[str, Object]) -> None:
    for task in tasks.values():
        assert condition(task, "MetricsAvailable")["status"] == "True", task["status"]
        assert task["status"]["decision"]["metricsAge"] < 6.0
        assert task["status"]["observed"]["energyQuality"] in ("measured", "coarse"), task["status"]
        assert task["status"]["observed"]["energyJoules"] > 0


def _assert_blind(tasks: dict[str, Object]) -> None:
    assert Counter(task["status"]["phase"] for task in tasks.values()) == Counter(Succeeded=TASKS)
    for task in tasks.values():
        missing = condition(task, "MetricsAvailable")
        assert (missing["status"], missing["reason"]) == ("False", "MetricsMissing"), task["status"]
        assert "metricsAge" not in task["status"]["decision"]
        assert task["status"]["observed"]["energyQuality"] == "missing"
        assert "energyJoules" not in task["status"]["observed"]


def _assert_never_zero(tasks: dict[str, Object]) -> None:
    """Tasks that were running when Prometheus died are measured or not, depending on when they ended."""
    for task in tasks.values():
        observed = task["status"]["observed"]
        assert ("energyJoules" in observed) == (observed["energyQuality"] != "missing")
        assert observed.get("energyJoules", 1.0) > 0


async def _is_blind(stage: Stage) -> bool:
    fresh = await stage.metric("perllm_telemetry_nodes", figure="power", quality="fresh")
    return fresh == 0 and await stage.metric("perllm_telemetry_up") == 0


async def _sees(stage: Stage) -> bool:
    fresh = await stage.metric("perllm_telemetry_nodes", figure="power", quality="fresh")
    return fresh == len(stage.lab.scenario.nodes()) and await stage.metric("perllm_telemetry_up") == 1


def _lines_about_telemetry(stage: Stage, log_start: int) -> list[Object]:
    return [line for line in stage.read_log(log_start) if line.get("logger") == "perllm.telemetry.poller"]


def _count_measured(tasks: dict[str, Object]) -> int:
    return sum("energyJoules" in task["status"]["observed"] for task in tasks.values())


async def _count_energies(stage: Stage) -> int:
    """Return how many energies the saved state contains."""
    statuses = [item["status"] for item in (await stage.profiles()).values() if "status" in item]
    return sum(arm.energy_count for status in statuses for arm in read_state(status).models)
