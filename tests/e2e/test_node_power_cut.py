"""A node loses power without notice: its tasks run elsewhere, and no other node is blamed."""

from collections import Counter

import pytest

from e2e.stage import Stage, wait_until
from perllm.cluster.client import Object
from perllm_lab.lab import LabSettings

SPEED = 3.0
TASKS = 16
# A node's lease is renewed every 10 s, so a shorter grace period would lose healthy nodes.
FLAGS = {
    "kube-controller-manager": ("--node-monitor-grace-period=12s", "--node-monitor-period=1s"),
    "kube-apiserver": ("--default-not-ready-toleration-seconds=1", "--default-unreachable-toleration-seconds=1"),
}


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    """Let Kubernetes give up a node after seconds, not minutes."""
    return LabSettings("modern", SPEED, flags=FLAGS)


async def test_tasks_of_a_lost_node_run_elsewhere_and_are_learned_only_there(stage: Stage) -> None:
    names = await stage.create_many("task", TASKS, output_tokens=500)
    await wait_until(lambda: _all_have_started(stage), timeout_s=30)
    running = Counter(task["status"]["nodeName"] for task in (await stage.tasks()).values() if _runs(task))
    iteration_s = {node.name: node.gpu.iteration_base_s for node in stage.lab.scenario.nodes()}
    lost = max(running, key=iteration_s.__getitem__)
    await stage.switch_node(lost, "cut-power")
    try:
        tasks = await stage.wait_all_settled(names, timeout_s=90)
    finally:
        await stage.switch_node(lost, "boot")
    assert Counter(task["status"]["phase"] for task in tasks.values()) == Counter(Succeeded=TASKS)
    assert Counter(line["outcome"] for line in stage.truth()) == Counter(Succeeded=TASKS, Lost=running[lost])
    replaced = [task["status"] for task in tasks.values() if task["status"]["attempts"] > 1]
    assert len(replaced) == running[lost]
    assert lost not in {status["nodeName"] for status in replaced}
    await stage.wait_learned(TASKS, timeout_s=10)
    learned = {name: profile["status"]["outcomes"] for name, profile in (await stage.profiles()).items()}
    assert learned == Counter(task["status"]["nodeName"] for task in tasks.values())


async def _all_have_started(stage: Stage) -> bool:
    return all(_runs(task) or "completionTime" in task.get("status", {}) for task in (await stage.tasks()).values())


def _runs(task: Object) -> bool:
    return (task.get("status") or {}).get("phase") == "Running"
