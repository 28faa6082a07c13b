"""Nodes that tasks must not be sent to: one that refuses every pod, and those that can never fit what a task needs."""

import asyncio
from collections import Counter
from typing import Any

from e2e.stage import Stage, phases, wait_until
from perllm.cluster.client import Object

MOST, MORE = 20, 10
"""Tasks until the node is known to be broken, at most, and how many follow."""

OTHERS = [f"t4-{number}" for number in range(6)]
"""Nodes that tasks prefer to no node of the cloud, each while it has no tasks."""


async def test_a_node_that_refuses_everything_is_avoided_and_named_until_it_is_repaired(stage: Stage) -> None:
    await stage.create("first", tiers=["cloud"])
    broken = (await stage.wait_final("first"))["status"]["nodeName"]
    await stage.switch_node(broken, "refuse")
    names: list[str] = []
    try:
        while not await _is_avoided(stage, broken):
            assert len(names) < MOST, "the node is not known to be broken"
            another = OTHERS[len(names) % len(OTHERS)]
            names += await stage.create_many(f"task-{len(names)}", 1, template=_template(**_allow(broken, another)))
            # One at a time: those under way when the node becomes known to be broken are refused as well.
            await stage.wait_status(names[-1], _was_refused_or_runs)
        names += await stage.create_many("later", MORE, tiers=["cloud"])
        tasks = await stage.wait_all_final(names)
        refused = [pod for pod in (await stage.pods()).values() if pod["status"]["phase"] == "Failed"]
        print(f"{len(refused)} pods refused, attempts {Counter(task['status']['attempts'] for task in tasks.values())}")
        assert phases(tasks) == Counter(Succeeded=len(names))
        assert 0 < len(refused) <= 6
        assert await _is_avoided(stage, broken)
        await wait_until(lambda: _is_shown(stage, broken, "open", "half-open"), timeout_s=30)
        assert "open" in await stage.kubectl("get", "llmnode", broken)
    finally:
        await stage.switch_node(broken, "accept")
    await wait_until(lambda: _is_closed_by_a_probe(stage, broken), timeout_s=60)


async def test_what_can_never_be_placed_is_rejected_or_waits_without_a_pod(stage: Stage) -> None:
    selecting, large = {"nodeSelector": {"zone": "none"}}, _asking_for(1000)
    await stage.create("strict", onInfeasible="Reject", template=_template(**selecting))
    await stage.create("large", onInfeasible="Reject", template=_template(**large))
    await stage.create("patient", template=_template(**selecting))
    ended = await stage.wait_all_final(["strict", "large"])
    assert phases(ended) == Counter(Rejected=2)
    assert ended["strict"]["status"]["message"].startswith("no node satisfies: nodeSelector zone=none (24 nodes)")
    assert ended["large"]["status"]["message"].startswith("no node satisfies: nvidia.com/gpu: 1000 on one node")
    await stage.wait_status("patient", lambda status: "nodeSelector zone=none" in status.get("message", ""))
    assert await stage.pods() == {}


def _template(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "llm", "image": "llm"}], **spec}}


def _allow(*nodes: str) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}]
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    }


def _asking_for(gpus: int) -> dict[str, Any]:
    return {"containers": [{"name": "llm", "image": "llm", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]}


async def _is_closed_by_a_probe(stage: Stage, node: str) -> bool:
    """Send a task that only this node can take, as any other goes where the policy prefers; return whether it ran."""
    template = _template(nodeSelector={"kubernetes.io/hostname": node})
    await stage.create(f"probe-{len(await stage.tasks())}", template=template)
    await asyncio.sleep(1)
    return await _is_shown(stage, node, "closed")


async def _is_avoided(stage: Stage, node: str) -> bool:
    return await stage.metric("perllm_circuits_open", node=node) == 1


def _was_refused_or_runs(status: Object) -> bool:
    return status.get("attempts", 0) > 1 or status.get("phase") in ("Running", "Succeeded")


async def _is_shown(stage: Stage, node: str, *states: str) -> bool:
    profile = (await stage.profiles()).get(node, {})
    return profile.get("status", {}).get("circuit", {}).get("state") in states
