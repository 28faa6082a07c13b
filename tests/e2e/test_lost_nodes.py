"""A node loses power without notice: its tasks run elsewhere, at once or after a while, and no other node is blamed."""

import asyncio
from collections import Counter

import pytest
import yaml

from e2e.conftest import RARE_SCRAPE_S, SPEED
from e2e.stage import Stage, wait_until
from perllm.cluster.client import Object
from perllm_lab.lab import Lab, LabSettings

TASKS = 16
PATIENCE_S = 12.0
# A node's lease is renewed every 10 s, or later where other tests take the processors; no healthy node must be lost.
FLAGS = {
    "kube-controller-manager": ("--node-monitor-grace-period=18s", "--node-monitor-period=1s"),
    "kube-apiserver": ("--default-not-ready-toleration-seconds=1", "--default-unreachable-toleration-seconds=1"),
}


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    """Let Kubernetes give up a node after seconds, not minutes."""
    return LabSettings("modern", SPEED, scrape_interval_s=RARE_SCRAPE_S, flags=FLAGS)


async def test_tasks_of_a_lost_node_run_elsewhere_and_are_learned_only_there(stage: Stage) -> None:
    names = await stage.create_many("task", TASKS, output_tokens=800)
    await wait_until(lambda: _all_have_started(stage), timeout_s=30)
    running = {task["status"]["nodeName"] for task in (await stage.tasks()).values() if _runs(task)}
    iteration_s = {node.name: node.gpu.iteration_base_s for node in stage.lab.scenario.nodes()}
    lost = max(running, key=iteration_s.__getitem__)
    await stage.switch_node(lost, "cut-power")
    try:
        tasks = await stage.wait_all_settled(names, timeout_s=120)
    finally:
        await stage.switch_node(lost, "boot")
    assert Counter(task["status"]["phase"] for task in tasks.values()) == Counter(Succeeded=TASKS)
    runs_lost = [line["node"] for line in stage.truth() if line["outcome"] == "Lost"]
    print(f"\n{len(runs_lost)} runs lost")
    assert set(runs_lost) == {lost}
    assert Counter(line["outcome"] for line in stage.truth()) == Counter(Succeeded=TASKS, Lost=len(runs_lost))
    replaced = [task["status"] for task in tasks.values() if task["status"]["attempts"] > 1]
    assert len(replaced) == len(runs_lost)
    assert lost not in {status["nodeName"] for status in replaced}
    await stage.wait_learned(TASKS, timeout_s=30)
    learned = {name: profile["status"]["outcomes"] for name, profile in (await stage.profiles()).items()}
    assert learned == Counter(task["status"]["nodeName"] for task in tasks.values())


async def test_a_task_runs_again_elsewhere_once_the_patience_is_over(stage: Stage) -> None:
    await _set_patience(stage.lab)
    await stage.create("task", output_tokens=2000, deadline="10m")
    task = await stage.wait_status("task", lambda status: status.get("phase") == "Running")
    node, loop = task["status"]["nodeName"], asyncio.get_running_loop()
    await stage.switch_node(node, "cut-power")
    try:
        await stage.wait_status("task", lambda status: "does not answer" in (status.get("message") or ""), timeout_s=90)
        began_s = loop.time()
        assert list(await stage.pods()) == ["task-1"]
        again = await stage.wait_status("task", lambda status: status.get("podName") == "task-2", timeout_s=90)
        waited_s = loop.time() - began_s
    finally:
        await stage.switch_node(node, "boot")
    print(f"\nran again {waited_s:.1f} s after the deletion of the pod was seen, patience {PATIENCE_S:g} s")
    assert waited_s > PATIENCE_S / 2
    assert again["status"]["nodeName"] != node
    await stage.wait_final("task", timeout_s=90)


async def _set_patience(lab: Lab) -> None:
    """Have the operator wait for the pods of nodes that are away, from now on."""
    config = yaml.safe_load(lab.operator_config.read_text())
    lab.operator_config.write_text(yaml.safe_dump({**config, "away_patience_s": PATIENCE_S}))
    await lab.operator.stop()
    await lab.start_operator()


async def _all_have_started(stage: Stage) -> bool:
    return all(_runs(task) or "completionTime" in task.get("status", {}) for task in (await stage.tasks()).values())


def _runs(task: Object) -> bool:
    return (task.get("status") or {}).get("phase") == "Running"
