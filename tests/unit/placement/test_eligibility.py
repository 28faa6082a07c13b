"""Which nodes a task may be sent to, and what is said of the others."""

from dataclasses import replace
from typing import Any

import pytest

from perllm.api.task import OnInfeasible
from perllm.cluster.node import Node, Taint
from perllm.placement.circuit import Attempt
from perllm.placement.circuits import PAUSE
from perllm.placement.demand import NO_POD, PodDemand, add_rules, read_demand
from perllm.placement.holds import HOLD
from perllm.placement.placer import Placement
from perllm.placement.serving import Serving
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy, Verdict
from perllm.policy.table import CsUcbTable
from perllm.scheduling.admission import Admission
from unit.placement.cluster_of import CLOUD, EDGE, Setting, make_node, make_request, make_setting

GPU, MIG = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"
WAIT, REJECT = Verdict.WAIT, Verdict.REJECT


def ask(gpus: int = 1, **spec: Any) -> PodDemand:
    return read_demand({"containers": [{"resources": {"limits": {GPU: gpus}}}], **spec}, (GPU,))


def labelled(name: str, *taints: Taint, **labels: str) -> Node:
    return Node(name, "uid", EDGE, "T4", 4.0, frozenset(), True, labels=labels, taints=taints)


def judge(placement: Placement) -> tuple[Verdict, Verdict]:
    """Return what becomes of a task under either of its terms."""
    admission = Admission()
    return admission.judge(placement, OnInfeasible.BEST_EFFORT), admission.judge(placement, OnInfeasible.REJECT)


def refuse(setting: Setting, node: str, *tasks: str) -> None:
    for task in tasks:
        setting.circuits.note_refused(Attempt(task, "lab", "m", node), "GPU is lost", setting.now_s)


class TestSlots:
    def test_of_several_gpus_are_all_taken(self) -> None:
        placer = make_setting(make_node("a", slots=5)).placer
        for number in range(2):
            placer.reserve(placer.choose(make_request(f"t{number}", demand=ask(2))), "a")
        assert placer.choose(make_request(demand=ask(2))).node is None
        assert placer.choose(make_request(demand=ask(1))).node == "a"
        placer.release("t0")
        assert placer.choose(make_request(demand=ask(2))).node == "a"

    def test_count_after_a_restart_as_well(self) -> None:
        before = make_setting(make_node("a", slots=3)).placer
        decision = before.explain(before.choose(make_request("t", demand=ask(2))), "a")
        placer = make_setting(make_node("a", slots=3)).placer
        placer.confirm(decision, ask(2).slots)
        assert placer.choose(make_request(demand=ask(2))).node is None

    def test_leave_the_laws_counting_tasks(self) -> None:
        placer = make_setting(make_node("a", slots=8)).placer
        placer.reserve(placer.choose(make_request("t", demand=ask(4))), "a")
        placement = placer.choose(make_request(demand=ask(2)))
        assert placer.explain(placement, "a").forecast.occupancy == 2.0
        assert placement.arms.compute_used.tolist() == [6.0]

    def test_are_counted_by_resource(self) -> None:
        node = replace(make_node("a", slots=5), resources={GPU: 4.0, MIG: 1.0})
        placer = make_setting(node, make_node("label", slots=9)).placer
        slice_, whole = PodDemand(resource=MIG), PodDemand(resource=GPU)
        placer.reserve(placer.choose(make_request("t", demand=slice_), ["a"]), "a")
        assert placer.choose(make_request(demand=slice_), ["a"]).node is None
        placement = placer.choose(make_request(demand=whole), ["a"])
        assert placement.node == "a"
        assert (placement.arms.compute_used, placement.arms.compute_capacity) == ([1.0], [4.0])

    def test_are_counted_by_resource_after_a_restart_as_well(self) -> None:
        node = replace(make_node("a", slots=5), resources={GPU: 4.0, MIG: 1.0})
        decision = make_setting(node).placer.explain(make_setting(node).placer.choose(make_request("t")), "a")
        placer = make_setting(node).placer
        placer.confirm(decision, 1.0, MIG)
        assert placer.choose(make_request(demand=PodDemand(resource=MIG))).node is None
        assert placer.choose(make_request(demand=PodDemand(4.0, resource=GPU))).node == "a"

    def test_are_of_every_resource_for_tasks_that_ask_for_none(self) -> None:
        node = replace(make_node("a", slots=2), resources={GPU: 1.0, MIG: 1.0})
        placer = make_setting(node).placer
        placer.reserve(placer.choose(make_request("t")), "a")
        assert placer.choose(make_request(demand=PodDemand(resource=GPU))).node is None
        assert placer.choose(make_request()).node == "a"

    def test_are_none_where_a_node_lacks_the_resource(self) -> None:
        amd = replace(make_node("amd"), resources={"amd.com/gpu": 4.0})
        jetson = replace(make_node("jetson"), resources={"": 4.0})
        placer = make_setting(amd, jetson).placer
        placement = placer.choose(make_request(demand=PodDemand(resource=GPU)))
        assert (placement.node, placement.obstacle) == (None, "no node satisfies: nvidia.com/gpu (2 nodes)")
        assert placer.choose(make_request(demand=PodDemand(resource="amd.com/gpu"))).node == "amd"

    def test_that_are_waited_for_count_for_those_behind(self) -> None:
        setting = make_setting(make_node("a", slots=2), policy=CsUcb())
        placer = setting.placer
        placer.reserve(placer.choose(make_request("busy", demand=ask(2))), "a")
        first = placer.choose(make_request()).arms.latency_s[0]
        setting.ledger.wait("before", 0, 0.0, slots=2.0)
        third = placer.choose(make_request()).arms.latency_s[0]
        # One slot more than there are two is waited for, then three: runs take 1 + 1 / 2, then 1 + 3 / 2 as long.
        assert third / first == pytest.approx(2.5 / 1.5)


@pytest.mark.parametrize("policy", [CsUcbTable, CsUcb])
class TestWhatCanNeverFit:
    @pytest.mark.parametrize(
        ("nodes", "demand", "message"),
        [
            (
                [labelled("a"), labelled("b")],
                ask(64),
                "no node satisfies: nvidia.com/gpu: 64 on one node, the largest has 4 (2 nodes); a task runs on one "
                "node: what needs several is for a LeaderWorkerSet, a JobSet or Volcano",
            ),
            (
                [labelled(f"n{number}", zone="y") for number in range(12)],
                ask(nodeSelector={"zone": "x"}),
                "no node satisfies: nodeSelector zone=x (12 nodes)",
            ),
            (
                [labelled("a", Taint("spot", "", "NoExecute")), labelled("b", zone="x")],
                ask(4, nodeSelector={"zone": "y"}),
                "no node satisfies: nodeSelector zone=y (2 nodes)",
            ),
            (
                [labelled("a", Taint("spot", "", "NoExecute"), zone="x"), labelled("b", zone="y")],
                ask(nodeSelector={"zone": "x"}),
                "no node satisfies: nodeSelector zone=x (1 node), toleration of spot:NoExecute (1 node)",
            ),
        ],
        ids=["size", "selector", "selector before taint", "selector and taint"],
    )
    def test_is_refused_or_waits_and_says_why(
        self, policy: type[Policy], nodes: list[Node], demand: PodDemand, message: str
    ) -> None:
        placement = make_setting(*nodes, policy=policy()).placer.choose(make_request(demand=demand))
        assert placement.obstacle == message
        assert judge(placement) == (WAIT, REJECT)

    def test_is_told_in_words_that_leave_room_for_others(self, policy: type[Policy]) -> None:
        kinds = ("spot.", "node.kubernetes.io/")
        taints = [
            [Taint(f"{kind}{number}" + "k" * 230, "v" * 63, "NoExecute") for number in range(3)] for kind in kinds
        ]
        nodes = [labelled(f"n{number}", *some) for number, some in enumerate(taints)]
        placement = make_setting(*nodes, policy=policy()).placer.choose(make_request(demand=ask()))
        assert 1000 < len(placement.obstacle) <= 2000

    def test_differs_from_what_passes(self, policy: type[Policy]) -> None:
        pressed = labelled("a", Taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"))
        placement = make_setting(pressed, policy=policy()).placer.choose(make_request(demand=ask()))
        assert placement.choice.excluded == {"node-condition": 1}
        assert judge(placement) == (WAIT, WAIT)

    def test_is_no_matter_while_there_are_no_nodes(self, policy: type[Policy]) -> None:
        placement = make_setting(policy=policy()).placer.choose(make_request(demand=ask(64)))
        assert (placement.obstacle, judge(placement)) == ("", (WAIT, WAIT))


class TestCircuits:
    def test_send_tasks_elsewhere(self) -> None:
        setting = make_setting(make_node("broken", gpu_type="H100"), make_node("b"), policy=CsUcb())
        assert setting.placer.choose(make_request()).node == "broken"
        refuse(setting, "broken", "t0", "t1", "t2")
        placement = setting.placer.choose(make_request())
        assert (placement.node, placement.choice.excluded, placement.obstacle) == ("b", {"circuit": 1}, "")

    @pytest.mark.parametrize("policy", [CsUcbTable, CsUcb])
    def test_of_all_nodes_make_tasks_wait_for_a_probe(self, policy: type[Policy]) -> None:
        setting = make_setting(make_node("a"), policy=policy())
        refuse(setting, "a", "t0", "t1", "t2")
        placement = setting.placer.choose(make_request())
        assert placement.obstacle == "not tried for now after refusals or failures there: a (GPU is lost)"
        assert judge(placement) == (WAIT, WAIT)
        setting.now_s += PAUSE.first_s
        setting.circuits.tend(setting.now_s)
        probe = setting.placer.choose(make_request("probe"))
        assert probe.node == "a"
        setting.placer.reserve(probe, "a")
        assert setting.placer.choose(make_request("second")).node is None
        assert setting.placer.choose(make_request("probe")).node == "a"
        setting.placer.release_reservation("probe")
        assert setting.placer.choose(make_request("second")).node == "a"

    def test_refuse_a_task_only_once_it_is_late(self) -> None:
        setting = make_setting(make_node("a"), policy=CsUcb())
        refuse(setting, "a", "t0", "t1", "t2")
        late = setting.placer.choose(make_request(due_s=setting.now_s - 1))
        assert judge(late) == (WAIT, REJECT)


class TestEarlierAttempts:
    def test_keep_a_task_from_their_nodes_although_others_are_full(self) -> None:
        placer = make_setting(make_node("a"), make_node("b", slots=1)).placer
        placer.reserve(placer.choose(make_request("busy")), "b")
        placement = placer.choose(make_request(avoided=frozenset({"a"})), ["a"])
        assert (placement.node, placement.choice.excluded) == (None, {"avoided": 1})
        assert placement.obstacle == "waits for other nodes, since earlier attempts ended badly on a"

    @pytest.mark.parametrize(
        "other",
        [make_node("b", CLOUD), make_node("b", is_open=False), make_node("b", slots=1)],
        ids=["of a tier that is not allowed", "cordoned", "too small"],
    )
    def test_do_not_where_no_other_may_take_it(self, other: Node) -> None:
        placer = make_setting(make_node("a"), other).placer
        request = make_request(tiers=frozenset({EDGE}), demand=ask(2), avoided=frozenset({"a", "gone"}))
        assert placer.choose(request).node == "a"

    def test_that_were_refused_make_it_wait_where_it_cannot_go_elsewhere(self) -> None:
        setting = make_setting(make_node("a"), policy=CsUcb())
        refuse(setting, "a", "t")
        request = make_request("t", avoided=frozenset({"a"}))
        held = setting.placer.choose(request)
        assert held.obstacle == "tried again after a pause, since its pods were refused by a"
        assert judge(held) == (WAIT, WAIT)
        setting.now_s += HOLD.first_s
        assert setting.placer.choose(request).node == "a"


def test_a_served_task_is_kept_off_nodes_by_labels_but_not_by_taints() -> None:
    setting = make_setting(labelled("a", Taint("spot", "", "NoSchedule"), zone="a"), labelled("b", zone="b"))
    for name in ("a", "b"):
        setting.fleet.put_serving(name, Serving(models=frozenset({"m"}), slots=8.0))
    demand = add_rules(NO_POD, {"nodeSelector": {"zone": "a"}})
    placement = setting.placer.choose(replace(make_request(demand=demand), is_served=True))
    assert (placement.node, placement.eligibility.excluded) == ("a", {"selector": 1})
