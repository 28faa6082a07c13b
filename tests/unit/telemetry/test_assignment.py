from perllm.telemetry.assignment import DeviceSamples, SeriesAssignment
from perllm.telemetry.feeds import Feed, NodeMetric, list_feeds
from perllm.telemetry.mapping import NodeMapping
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings

SETTINGS = TelemetrySettings()
ENERGY, POWER = list_feeds(SETTINGS)[:2]
MAPPING = NodeMapping.build({"a": [], "b": []}, SETTINGS.node_labels)


def assign(feed: Feed, *found: Series) -> SeriesAssignment:
    assignment = SeriesAssignment(feed, MAPPING)
    for series in found:
        assignment.add(series)
    return assignment


def gpu(value: float, *, node: str = "a", uuid: str = "GPU-1", time_s: float = 100.0, **labels: str) -> Series:
    return Series({"node": node, "UUID": uuid, **labels}, ((time_s, value),))


def test_values_are_converted_by_the_unit_of_their_query() -> None:
    assert list(assign(ENERGY, gpu(5000)).list_devices()) == [DeviceSamples("a", "GPU-1", ((100.0, 5.0),))]


def test_mig_instances_that_repeat_their_gpu_a_moment_later_are_one_device() -> None:
    (device,) = assign(POWER, gpu(52.6, GPU_I_ID="3"), gpu(52.7, GPU_I_ID="4")).list_devices()

    assert (device.fault, device.samples[0]) == ("", (100.0, 52.6))


def test_a_gpu_whose_pod_labels_change_remains_one_device() -> None:
    (device,) = assign(POWER, gpu(50, pod="x", app="x"), gpu(60, time_s=115, pod="y")).list_devices()

    assert device.samples == ((100.0, 50), (115.0, 60))


def test_two_gpus_under_one_identifier_are_unknown_rather_than_one_of_them() -> None:
    found = assign(POWER, gpu(400, gpu="0"), gpu(200, gpu="1"), gpu(90, uuid="GPU-2")).list_devices()
    faulty, fine = found

    assert "another series of the same device has other values; set device_labels" in faulty.fault
    assert faulty.samples == ()
    assert fine.samples == ((100.0, 90),)


def test_links_under_one_name_are_to_be_told_apart_by_their_query() -> None:
    received = next(feed for feed in list_feeds(SETTINGS) if feed.metric is NodeMetric.RECEIVED)
    link = {"node": "a", "device": "eno1"}
    (faulty,) = assign(received, Series(link, ((1, 1),)), Series({**link, "vrf": "x"}, ((1, 9),))).list_devices()

    assert faulty.fault.endswith("let config.telemetry.queries.received select fewer")


def test_counters_under_one_identifier_differ_by_more_than_some_seconds_of_energy() -> None:
    (same,) = assign(ENERGY, gpu(1e9, pod="x"), gpu(1e9 + 5e6, pod="y")).list_devices()
    (different,) = assign(ENERGY, gpu(1e9, gpu="0"), gpu(2e9, gpu="1")).list_devices()

    assert not same.fault
    assert different.fault


def test_equal_nodes_of_two_clusters_are_unknown_and_others_are_not_affected() -> None:
    here, there = gpu(100, cluster="here"), gpu(600, uuid="GPU-2", cluster="there")
    devices = {
        (one.node, one.device): one.fault for one in assign(POWER, here, there, gpu(50, node="b")).list_devices()
    }

    assert "cluster is one of here, there" in devices["a", "GPU-1"]
    assert "set telemetry.matchers" in devices["a", "GPU-2"]
    assert devices["b", "GPU-1"] == ""


def test_two_replicas_of_prometheus_are_no_two_clusters() -> None:
    replicas = [gpu(50, prometheus_replica="r-0"), gpu(51, time_s=107, prometheus_replica="r-1")]
    (device,) = assign(POWER, *replicas).list_devices()

    assert len(device.samples) == 2


def test_interfaces_are_devices_whatever_labels_gpus_have() -> None:
    settings = TelemetrySettings(device_labels=("path",))
    feeds = {feed.metric: feed for feed in list_feeds(settings)}
    labels = {"node": "a", "device": "eno1"}
    names = [
        next(assign(feeds[metric], Series({"__name__": metric, **labels}, ((1, 1),))).list_devices()).device
        for metric in (NodeMetric.RECEIVED, NodeMetric.LINK_SPEED)
    ]

    assert names == ["eno1", "eno1"]
