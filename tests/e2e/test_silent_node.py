"""A node stops answering, and its pods, which Kubernetes deletes, are waited for before their tasks run again."""

import asyncio

import pytest

from e2e.stage import Stage
from e2e.test_node_power_cut import FLAGS
from perllm_lab.lab import LabSettings

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    return LabSettings("modern", 1.0, flags=FLAGS, operator_config={"away_patience_s": PATIENCE_S})


async def test_a_task_runs_again_elsewhere_once_the_patience_is_over(stage: Stage) -> None:
    await stage.create("task", output_tokens=2000, deadline="10m")
    task = await stage.wait_status("task", lambda status: status.get("phase") == "Running")
    node, loop = task["status"]["nodeName"], asyncio.get_running_loop()
    await stage.switch_node(node, "cut-power")
    try:
        await stage.wait_status("task", lambda status: "does not answer" in (status.get("message") or ""), timeout_s=40)
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
