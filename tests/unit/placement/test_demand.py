"""What is understood of a pod's template, and which nodes it leaves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.cluster.node import Node, Taint
from perllm.placement.demand import MAX_RULES, ONE_SLOT, NodeRules, read_demand
from perllm.placement.fitting import MAX_CHANGES, MAX_KNOWN, Fit, Fitting, find_fit
from unit.placement.cluster_of import EDGE

GPU = "nvidia.com/gpu"
SPOT = Taint("spot", "yes", "NoSchedule")


def container(gpus: object = None, *, part: str = "limits", **fields: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {} if gpus is None else {part: {GPU: gpus}}, **fields}


def make_node(name: str = "n", *taints: Taint, **labels: str) -> Node:
    return Node(name, "uid", EDGE, "T4", 4.0, frozenset(), True, labels=labels, taints=taints)


def rules(**spec: Any) -> NodeRules:
    return read_demand({"containers": [container(1)], **spec}, (GPU,)).rules


def affinity(*expressions: Any, **fields: Any) -> dict[str, Any]:
    term = {"matchExpressions": list(expressions), **fields}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}


def expression(operator: str, *values: str, key: str = "zone") -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def test_cpu_and_memory_are_what_kube_scheduler_scores_a_pod_with() -> None:
    asked = {"resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}
    demand = read_demand({"containers": [asked, {"name": "asks nothing"}]}, GPU)
    assert (demand.cpu_cores, demand.memory_bytes) == (0.35, 2**30 + 200 * 2**20)


def test_what_a_pod_requests_as_a_whole_counts_instead_of_its_containers() -> None:
    whole = {"requests": {"cpu": "2"}, "limits": {"cpu": "4", "memory": "1Gi"}}
    demand = read_demand({"resources": whole, "containers": [container(2)]}, (GPU,))
    assert (demand.cpu_cores, demand.memory_bytes, demand.slots) == (2.0, 2**30, 2)


class TestSlots:
    @pytest.mark.parametrize(
        ("spec", "slots"),
        [
            ({"containers": [container()]}, 1),
            ({"containers": [container(0)]}, 1),
            ({"containers": [container("2")]}, 2),
            ({"containers": [container(2, part="requests")]}, 2),
            ({"containers": [container(2), container("3"), container()]}, 5),
            ({"containers": [container(1)], "initContainers": [container(4), container(2)]}, 4),
            ({"containers": [container(1)], "initContainers": [container(2, restartPolicy="Always")]}, 3),
            (
                {"containers": [container(1)], "initContainers": [container(1, restartPolicy="Always"), container(4)]},
                5,
            ),
            ({"containers": [container("2e0")]}, 2),
        ],
    )
    def test_are_what_kube_scheduler_counts_and_at_least_one(self, spec: dict[str, Any], slots: float) -> None:
        assert read_demand(spec, (GPU,)).slots == slots

    def test_are_of_the_resource_that_counts(self) -> None:
        spec = {"containers": [{"resources": {"limits": {"amd.com/gpu": 2, "example.com/npu": 4, GPU: 8}}}]}
        demand = read_demand(spec, ("nvidia.com/mig-*", "amd.com/gpu", GPU))
        assert (demand.resource, demand.slots) == ("amd.com/gpu", 2)

    @pytest.mark.parametrize("none", [0, "0", "0m"])
    def test_are_of_no_resource_that_none_is_asked_of(self, none: object) -> None:
        limits = {GPU: none, "amd.com/gpu": 2}
        demand = read_demand({"containers": [{"resources": {"limits": limits}}]}, (GPU, "amd.com/gpu"))
        assert (demand.resource, demand.slots) == ("amd.com/gpu", 2.0)

    def test_are_of_a_resource_that_a_pattern_names(self) -> None:
        spec = {"containers": [{"resources": {"limits": {"nvidia.com/mig-1g.10gb": 3}}}]}
        demand = read_demand(spec, (GPU, "nvidia.com/mig-*"))
        assert (demand.resource, demand.slots) == ("nvidia.com/mig-1g.10gb", 3)

    def test_are_one_of_no_resource_if_none_is_asked_for(self) -> None:
        assert read_demand({"containers": [container(2)]}, ("amd.com/gpu",)).resource == ""


class TestSelectors:
    @pytest.mark.parametrize(
        ("spec", "fits"),
        [
            ({}, True),
            ({"nodeSelector": {"zone": "a"}}, True),
            ({"nodeSelector": {"zone": "b"}}, False),
            ({"nodeSelector": {"zone": "a", "disk": "ssd"}}, False),
            (affinity(expression("In", "b", "a")), True),
            (affinity(expression("In", "b")), False),
            (affinity(expression("NotIn", "a")), False),
            (affinity(expression("NotIn", "a", key="disk")), True),
            (affinity(expression("Exists")), True),
            (affinity(expression("DoesNotExist")), False),
            (affinity(expression("Gt", "7", key="memory")), True),
            (affinity(expression("Gt", "8", key="memory")), False),
            (affinity(expression("Lt", "9", key="memory")), True),
            (affinity(expression("Lt", "9")), False),
            (affinity(expression("Exists"), expression("In", "b")), False),
            (affinity(), False),
            (affinity(matchFields=[expression("In", "n", key="metadata.name")]), True),
            (affinity(matchFields=[expression("NotIn", "n", key="metadata.name")]), False),
        ],
    )
    def test_hold_or_not_of_a_node(self, spec: dict[str, Any], fits: bool) -> None:
        node = make_node(zone="a", memory="8")
        assert find_fit(rules(**spec), node) is (Fit.FITS if fits else Fit.SELECTOR)

    def test_hold_where_one_of_several_terms_does(self) -> None:
        spec = affinity(expression("In", "b"))
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        required["nodeSelectorTerms"].append({"matchExpressions": [expression("Exists")]})
        assert find_fit(rules(**spec), make_node(zone="a")) is Fit.FITS

    @pytest.mark.parametrize(
        "spec",
        [
            {"nodeSelector": {"zone": True}},
            {"nodeSelector": ["zone"]},
            {"affinity": "near"},
            affinity("zone"),
            affinity({"key": "zone"}),
            affinity({"key": "zone", "operator": "Near"}),
            affinity(expression("Gt", "many")),
            affinity(expression("Gt", "1", "2")),
            affinity(expression("In", *["x"] * 10_000)),
            affinity(*[expression("In", "b")] * (MAX_RULES + 1)),
            affinity(matchFields=[expression("In", "n", key="metadata.uid")]),
        ],
    )
    def test_that_cannot_be_understood_are_left_to_others(self, spec: dict[str, Any]) -> None:
        assert find_fit(rules(**spec), make_node(zone="a")) is Fit.FITS

    def test_are_told_in_one_line(self) -> None:
        spec = {"nodeSelector": {"zone": "\x1b[31mx"}, **affinity(expression("In", "b", "a"), expression("Exists"))}
        assert rules(**spec).describe() == "nodeSelector zone=x, node affinity zone In (a, b) and zone Exists"


class TestTaints:
    @pytest.mark.parametrize(
        ("toleration", "is_tolerated"),
        [
            ({"operator": "Exists"}, True),
            ({"key": "spot", "operator": "Exists"}, True),
            ({"key": "spot", "value": "yes"}, True),
            ({"key": "spot", "value": "yes", "effect": "NoSchedule"}, True),
            ({"key": "spot", "value": "no"}, False),
            ({"key": "spot"}, False),
            ({"key": "other", "operator": "Exists"}, False),
            ({"key": "spot", "operator": "Exists", "effect": "NoExecute"}, False),
            ({"key": "spot", "operator": "Gt", "value": "1"}, True),
        ],
    )
    def test_keep_pods_off_that_do_not_tolerate_them(self, toleration: dict[str, Any], is_tolerated: bool) -> None:
        fit = find_fit(rules(tolerations=[toleration]), make_node("n", SPOT))
        assert fit is (Fit.FITS if is_tolerated else Fit.TAINT)

    def test_of_kubernetes_itself_pass(self) -> None:
        pressure = Taint("node.kubernetes.io/memory-pressure", "", "NoSchedule")
        assert find_fit(rules(), make_node("n", pressure)) is Fit.PASSING_TAINT
        assert find_fit(rules(), make_node("n", pressure, SPOT)) is Fit.TAINT

    def test_named_after_a_resource_that_is_asked_for_may_be_tolerated_later(self) -> None:
        taint = Taint(GPU, "present", "NoSchedule")
        assert find_fit(rules(), make_node("n", taint)) is Fit.FITS
        assert find_fit(rules(containers=[container()]), make_node("n", taint)) is Fit.TAINT


class TestFitting:
    def test_follows_the_nodes(self) -> None:
        fitting, zone_a = Fitting(), rules(nodeSelector={"zone": "a"})
        fitting.put(make_node(zone="b"), 0)
        assert fitting.fits(zone_a).tolist() == [Fit.SELECTOR]
        fitting.put(make_node(zone="a"), 0)
        fitting.put(make_node("far", zone="b"), 2)
        assert fitting.fits(zone_a).tolist() == [Fit.FITS, Fit.FITS, Fit.SELECTOR]

    def test_keeps_no_more_than_a_bounded_number_of_rules(self) -> None:
        fitting = Fitting()
        fitting.put(make_node(zone="a"), 0)
        for number in range(3 * MAX_KNOWN):
            fitting.fits(rules(nodeSelector={"zone": str(number)}))
        assert len(fitting._known) == MAX_KNOWN

    def test_starts_over_after_very_many_changes(self) -> None:
        fitting, zone_a = Fitting(), rules(nodeSelector={"zone": "a"})
        for number in range(MAX_CHANGES + 2):
            fitting.put(make_node(zone=str(number)), 0)
        assert fitting.fits(zone_a).tolist() == [Fit.SELECTOR]
        fitting.put(make_node(zone="a"), 0)
        assert fitting.fits(zone_a).tolist() == [Fit.FITS]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def among(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings in which some of the names have values of any shape."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON))


EXPRESSION = among("key", "values") | st.builds(
    expression, st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "?"]), st.text(max_size=3)
)
TERM = JSON | st.fixed_dictionaries({}, optional={"matchExpressions": st.lists(EXPRESSION), "matchFields": JSON})
REQUIRED = JSON | st.fixed_dictionaries({"nodeSelectorTerms": JSON | st.lists(TERM)})
AFFINITY = st.fixed_dictionaries(
    {"nodeAffinity": JSON | st.fixed_dictionaries({"requiredDuringSchedulingIgnoredDuringExecution": REQUIRED})}
)
RESOURCES = st.fixed_dictionaries({}, optional={"limits": JSON | st.fixed_dictionaries({GPU: JSON}), "requests": JSON})
CONTAINERS = JSON | st.lists(JSON | st.fixed_dictionaries({"resources": JSON | RESOURCES}))
SPEC = JSON | st.fixed_dictionaries(
    {},
    optional={
        "containers": CONTAINERS,
        "initContainers": CONTAINERS,
        "affinity": JSON | AFFINITY,
        "nodeSelector": JSON | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
        "tolerations": JSON | st.lists(among("key", "operator", "value", "effect")),
    },
)


@given(SPEC)
def test_whatever_a_template_holds_is_understood_somehow(spec: Any) -> None:
    demand = read_demand(spec, (GPU,))
    assert demand.slots >= ONE_SLOT.slots
    assert find_fit(demand.rules, make_node("n", SPOT, zone="a", memory="8")) in set(Fit)
    assert isinstance(demand.rules.describe(), str)
    assert hash(demand) == hash(read_demand(spec, (GPU,)))
