"""Annotated pods that live in random ways, with events that come late, twice or not at all: nothing is left of them.

Found so, the last two with more seeds: a pod that kube-scheduler asked about again after its binding lost its slot; one
whose node had left before its binding was seen kept it after its end; decisions about bound pods were kept.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from perllm.annotated.pods import SeenPod
from perllm.api import names
from perllm.extender.retries import GONE_S
from perllm.placement.request import PlacementRequest
from unit.annotated.pods import pod_object
from unit.annotated.test_pods import NAMES, Cluster, MakeCluster, make_cluster
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import UPLINK

pytestmark = pytest.mark.looptime

__all__ = ["make_cluster"]

SEEDS, CHECKS, STEPS = 8, 6, 20
WEIGHTS = {
    "create": 2,
    "show": 3,
    "ask": 2,
    "ask_about_gone": 1,
    "bind": 2,
    "bind_gone": 1,
    "start": 1,
    "finish": 2,
    "delete": 1,
    "recreate": 1,
    "change": 1,
    "leave": 1,
    "join": 1,
    "sleep": 2,
}


@dataclass
class Lives:
    """Pods as the API server has them, and as they were last shown."""

    cluster: Cluster
    random: Random
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: dict[str, SeenPod] = field(default_factory=dict)
    gone: list[dict[str, Any]] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.of_pods: dict[str, Callable[[dict[str, Any]], object]] = {
            "show": self._show,
            "ask": self._ask,
            "bind": self._bind,
            "start": self._start,
            "finish": self._finish,
            "delete": self._delete,
            "recreate": self._recreate,
            "change": self._change,
        }

    async def live(self) -> None:
        """Let something happen."""
        (event,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if event == "sleep":
            await asyncio.sleep(self.random.choice([0.5, 2.0, 9.0, 60.0]))
        elif event in ("leave", "join"):
            self._change_node(event)
        elif event == "create":
            self._create(self.random.choice("pqr"))
        elif event in ("ask_about_gone", "bind_gone") and self.gone:
            self.of_pods["ask" if event == "ask_about_gone" else "bind"](self.random.choice(self.gone))
        elif event in self.of_pods and self.pods:
            self.of_pods[event](self.random.choice(list(self.pods.values())))

    def show(self, name: str) -> None:
        """Show a pod as it is by now; another of its name is a deletion and an addition."""
        pod, old = self.pods.get(name), self.shown.pop(name, None)
        new = None if pod is None else self.cluster.pods.read(self._describe(pod))
        if old is not None and (new is None or old.pod.uid != new.pod.uid):
            self.cluster.pods.on_pod(old, None)
            old = None
        if new is not None:
            self.cluster.pods.on_pod(old, new)
            self.shown[name] = new

    def show_all(self) -> None:
        for name in sorted({*self.pods, *self.shown}):
            self.show(name)

    def end(self) -> None:
        for name in list(self.pods):
            self._delete(self.pods[name])
        self.show_all()

    def join(self, name: str, slots: float) -> None:
        self.cluster.scheduler.put_node(make_node(name, slots=slots), UPLINK)

    def _describe(self, pod: dict[str, Any]) -> dict[str, Any]:
        item = pod_object(**{key: value for key, value in pod.items() if key != "record"})
        record = {names.DECISION_ANNOTATION: pod["record"]} if "record" in pod else {}
        item["metadata"]["annotations"] = {**item["metadata"]["annotations"], **record}
        return item

    def _create(self, name: str) -> None:
        self.made += 1
        if name not in self.pods:
            self.pods[name] = {"name": name, "uid": f"uid-{self.made}", "created_s": self.cluster.now_s()}

    def _show(self, pod: dict[str, Any]) -> None:
        self.show(pod["name"])

    def _ask(self, pod: dict[str, Any]) -> str | None:
        """Ask as kube-scheduler does; return the node that is chosen."""
        asked = self.cluster.pods.request_of(self._describe(pod))
        assert isinstance(asked, PlacementRequest)
        node = self.cluster.scheduler.decide(asked, NAMES).node
        if node is None:
            self.cluster.retries.note_rejected(pod["uid"], f"lab/{pod['name']}", asked)
        return node

    def _bind(self, pod: dict[str, Any]) -> None:
        """Do what the extender does; the API server denies it for a pod that is gone, or bound."""
        node = self._ask(pod)
        decision = None if node is None else self.cluster.scheduler.settle(pod["uid"], node)
        if decision is None:
            return
        self.cluster.decisions.note_bound(pod["uid"], decision.node, decision.to_record())
        if pod in self.gone or "node" in pod:
            self.cluster.scheduler.cancel(pod["uid"])
            self.cluster.decisions.forget(pod["uid"])
            return
        pod |= {"node": decision.node, "record": decision.to_record()}
        self.cluster.scheduler.confirm(decision, 1.0, "nvidia.com/gpu")

    def _start(self, pod: dict[str, Any]) -> None:
        if "node" in pod:
            pod.setdefault("started_s", self.cluster.now_s())

    def _finish(self, pod: dict[str, Any]) -> None:
        if "started_s" in pod:
            pod.setdefault("finished_s", self.cluster.now_s())

    def _delete(self, pod: dict[str, Any]) -> None:
        self.gone.append(self.pods.pop(pod["name"]))

    def _recreate(self, pod: dict[str, Any]) -> None:
        self._delete(pod)
        self._create(pod["name"])

    def _change(self, pod: dict[str, Any]) -> None:
        pod["annotations"] = {names.MODEL_ANNOTATION: "other"}

    def _change_node(self, event: str) -> None:
        name = self.random.choice(NAMES)
        if event == "leave":
            self.cluster.scheduler.remove_node(name)
        else:
            self.join(name, slots=self.random.choice([0, 1, 2]))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_slots_are_those_of_the_pods_and_in_the_end_nothing_is_left(make_cluster: MakeCluster, seed: int) -> None:
    cluster = make_cluster()
    lives = Lives(cluster, Random(seed))
    for _ in range(CHECKS):
        for _ in range(STEPS):
            await lives.live()
        for name in NAMES:
            lives.join(name, slots=2)
        lives.show_all()
        in_flight = {uid for uid in cluster.parts.ledger.confirmed if cluster.pods.is_in_flight(uid)}
        assert in_flight == {pod["uid"] for pod in lives.pods.values() if "node" in pod and "finished_s" not in pod}
    lives.end()
    await asyncio.sleep(GONE_S)
    cluster.bind("last")
    cluster.remove("last")
    assert len(cluster.parts.ledger) == 0
    for uid in [f"uid-{number}" for number in range(1, lives.made + 1)]:
        assert not cluster.pods.is_in_flight(uid)
        assert uid not in cluster.retries
        assert cluster.scheduler.find_counterfactual(uid) is None
        assert cluster.scheduler.settle(uid, "a") is None
