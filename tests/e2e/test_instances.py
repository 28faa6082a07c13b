"""Two operators in one cluster, each with its own namespace, scheduler name and learned state, on the same nodes."""

import asyncio
from collections import Counter

import pytest

from e2e.conftest import RARE_SCRAPE_S, SPEED
from e2e.replicas import open_replica
from e2e.requests import synthetic_requests
from e2e.stage import phases, wait_until
from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.rbac import build_manifests, collection_path
from perllm_lab.installation import OPERATOR_USER, SCHEDULER_USER, rbac_user
from perllm_lab.lab import Lab, LabSettings
from perllm_lab.trace_replay import TraceReplay, as_tasks

FIRST, SECOND = "first", "second"
TASKS = 40


@pytest.fixture(scope="module")
def lab_settings() -> LabSettings:
    return LabSettings("modern", SPEED, scrape_interval_s=RARE_SCRAPE_S, operator_config={"namespaces": [FIRST]})


async def test_two_operators_do_not_disturb_each_other(lab: Lab) -> None:
    await _grant(lab)
    config = {"namespaces": [SECOND], "instance": SECOND, "scheduler_name": "perllm-second"}
    async with open_replica(lab, SECOND, config):
        replays = [_replay(lab, namespace, seed) for seed, namespace in enumerate((FIRST, SECOND))]
        async with asyncio.TaskGroup() as group:
            for replay in replays:
                group.create_task(replay.run(timeout_s=120.0))
        for replay in replays:
            assert await replay.wait_measured(timeout_s=60.0)
            assert phases(replay.objects) == Counter(Succeeded=TASKS)
        await wait_until(lambda: _have_learned(lab), timeout_s=20)
    runs = Counter(
        (line["namespace"], line["task"])
        for line in lab.read_truth()
        if line["kind"] == "pod" and line["outcome"] == "Succeeded"
    )
    assert len(runs) == 2 * TASKS
    assert set(runs.values()) == {1}


async def _grant(lab: Lab) -> None:
    """Give the operator the rights on tasks in the second namespace too."""
    await lab.client.post("/api/v1/namespaces", {"metadata": {"name": SECOND}})
    users = rbac_user(OPERATOR_USER), rbac_user(SCHEDULER_USER)
    for manifest in build_manifests(*users, namespaces=[SECOND]):
        if manifest["metadata"].get("namespace"):
            await lab.client.post(collection_path(manifest), manifest)


def _replay(lab: Lab, namespace: str, seed: int) -> TraceReplay:
    requests = synthetic_requests(lab.scenario, TASKS, rate_per_s=2.0, seed=[seed])
    return TraceReplay(lab.client, as_tasks(namespace, lab.settings.speed), requests, lab.settings.speed)


async def _have_learned(lab: Lab) -> bool:
    """Whether each operator has saved the outcomes of its own tasks."""
    counts = {FIRST: 0, SECOND: 0}
    for profile in (await lab.client.get(names.node_profiles_path()))["items"]:
        counts[_owner(profile)] += (profile.get("status") or {}).get("outcomes", 0)
    return counts == {FIRST: TASKS, SECOND: TASKS}


def _owner(profile: Object) -> str:
    """Return the instance that a profile belongs to; name and label of the second operator's profiles carry it."""
    (node,) = [one["name"] for one in profile["metadata"]["ownerReferences"]]
    instance = profile["metadata"].get("labels", {}).get(names.INSTANCE_LABEL)
    assert profile["metadata"]["name"] == (f"{instance}.{node}" if instance else node)
    return instance or FIRST
