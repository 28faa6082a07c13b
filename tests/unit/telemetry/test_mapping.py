import pytest

from perllm.telemetry.mapping import NodeMapping, find_device

LABELS = ("node", "Hostname", "instance")
NODES = {"edge-1": ["10.0.0.1", "fd00::1"], "edge-2": ["10.0.0.2"]}


@pytest.mark.parametrize(
    ("labels", "node"),
    [
        ({"node": "edge-1"}, "edge-1"),
        ({"Hostname": "edge-2", "instance": "10.0.0.1:9400"}, "edge-2"),
        ({"node": "unknown", "instance": "edge-1"}, "edge-1"),
        ({"instance": "10.0.0.2:9100"}, "edge-2"),
        ({"instance": "10.0.0.2"}, "edge-2"),
        ({"instance": "[fd00::1]:9100"}, "edge-1"),
        ({"instance": "[FD00:0:0::0001]:9100"}, "edge-1"),
        ({"instance": "fd00::1"}, "edge-1"),
        ({"instance": "edge-1:9100"}, "edge-1"),
        ({"instance": "10.0.0.22:9100"}, None),
        ({"pod": "edge-1"}, None),
        ({"exported_node": "edge-2", "node": "edge-1"}, "edge-2"),
        ({"exported_node": "switch", "node": "edge-1"}, None),
        ({"exported_instance": "10.0.0.2:9100", "instance": "edge-1:9090"}, "edge-2"),
        ({}, None),
    ],
)
def test_first_label_that_tells_a_known_node_wins(labels: dict[str, str], node: str | None) -> None:
    assert NodeMapping.build(NODES, LABELS).find(labels) == node


def test_name_wins_over_the_address_of_another_node() -> None:
    nodes = {"10.0.0.9": ["10.0.0.1"], "edge": ["10.0.0.9"]}

    assert NodeMapping.build(nodes, LABELS).find({"instance": "10.0.0.9:1"}) == "10.0.0.9"


@pytest.mark.parametrize(
    ("label", "node"),
    [
        ("EDGE-1", "edge-1"),
        ("edge-1.example.com", "edge-1"),
        ("big-3", "big-3.example.com"),
        ("Big-3.Example.Com", "big-3.example.com"),
        ("big-3.elsewhere.example.com", None),
        ("twin", None),
        ("twin.a.example.com", "twin.a.example.com"),
    ],
)
def test_host_names_identify_nodes_in_any_case_with_and_without_domain(label: str, node: str | None) -> None:
    names = ("edge-1", "big-3.example.com", "twin.a.example.com", "twin.b.example.com")

    assert NodeMapping.build({name: [] for name in names}, LABELS).find({"Hostname": label}) == node


def test_an_address_is_not_taken_for_a_host_name() -> None:
    mapping = NodeMapping.build({"10": ["10.0.0.9"]}, LABELS)

    assert mapping.find({"instance": "10.0.0.1:9400"}) is None
    assert mapping.find({}) is None


def test_address_of_two_nodes_identifies_neither_and_is_named() -> None:
    mapping = NodeMapping.build({"a": ["10.0.0.1", "10.0.0.9"], "b": ["10.0.0.2", "10.0.0.9"]}, LABELS)

    assert mapping.find({"instance": "10.0.0.9:9400"}) is None
    assert mapping.find({"instance": "10.0.0.2:9400"}) == "b"
    assert mapping.shared == {"10.0.0.9": ["a", "b"]}


def test_gpu_shared_by_pods_is_one_device() -> None:
    shared = [{"UUID": "GPU-1", "gpu": "0", "pod": pod} for pod in ("a", "b")]

    assert {find_device(labels, ("UUID", "gpu")) for labels in shared} == {"GPU-1"}


def test_identifier_of_zeros_identifies_no_device() -> None:
    zero = "00000000-0000-0000-0000-000000000000"

    assert find_device({"gpu_uuid": zero, "gpu_id": "0"}, ("gpu_uuid", "gpu_id")) == "0"


def test_series_without_device_labels_stay_apart() -> None:
    assert find_device({"zone": "a"}, ("UUID",)) != find_device({"zone": "b"}, ("UUID",))


def test_a_device_without_labels_of_its_own_outlives_the_pod_of_its_exporter() -> None:
    before = {"__name__": "joules", "zone": "a", "pod": "exporter-1", "instance": "10.0.0.1:9"}
    after = {"__name__": "watts", "zone": "a", "pod": "exporter-2", "instance": "10.0.0.2:9"}

    assert find_device(before, ("UUID",)) == find_device(after, ("UUID",))
