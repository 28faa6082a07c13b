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
        ({"instance": "edge-1:9100"}, "edge-1"),
        ({"instance": "10.0.0.22:9100"}, None),
        ({"pod": "edge-1"}, None),
        ({}, None),
    ],
)
def test_first_label_that_tells_a_known_node_wins(labels: dict[str, str], node: str | None) -> None:
    assert NodeMapping.build(NODES, LABELS).find(labels) == node


def test_name_wins_over_the_address_of_another_node() -> None:
    nodes = {"10.0.0.9": ["10.0.0.1"], "edge": ["10.0.0.9"]}

    assert NodeMapping.build(nodes, LABELS).find({"instance": "10.0.0.9:1"}) == "10.0.0.9"


def test_gpu_shared_by_pods_is_one_device() -> None:
    shared = [{"UUID": "GPU-1", "gpu": "0", "pod": pod} for pod in ("a", "b")]

    assert {find_device(labels, ("UUID", "gpu")) for labels in shared} == {"GPU-1"}


def test_series_without_device_labels_stay_apart() -> None:
    assert find_device({"zone": "a"}, ("UUID",)) != find_device({"zone": "b"}, ("UUID",))
