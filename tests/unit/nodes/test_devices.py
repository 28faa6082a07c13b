"""Devices as they come and go, and those that pods of others hold."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from perllm.cluster.devices import GpuDevice
from perllm.nodes.devices import NodeDevices
from unit.cluster.device_objects import DRIVER, make_allocated, make_slice
from unit.controller.samples import bound, succeeded, waiting


class Seen:
    """What was shown last."""

    def __init__(self) -> None:
        self.devices: dict[str, int] = {}
        self.foreign: dict[str, float] = {}
        self.follower = NodeDevices(self._show, self._show_foreign)

    def _show(self, node: str, devices: Sequence[GpuDevice]) -> None:
        self.devices[node] = len(devices)

    def _show_foreign(self, node: str, foreign: dict[str, float]) -> None:
        self.foreign[node] = sum(foreign.values())


@pytest.fixture
def seen() -> Seen:
    seen = Seen()
    seen.follower.on_slice(None, make_slice("n", "0", "1"))
    return seen


def test_devices_are_those_of_complete_pools(seen: Seen) -> None:
    first, second = (make_slice("m", one, name=one, total=2) for one in ("0", "1"))
    seen.follower.on_slice(None, first)
    assert seen.devices == {"n": 2}
    seen.follower.on_slice(None, second)
    assert seen.devices == {"n": 2, "m": 2}


def test_a_node_keeps_its_devices_while_a_new_generation_arrives(seen: Seen) -> None:
    old = make_slice("n", "0", "1")
    first = make_slice("n", "0", generation=2, total=2)
    seen.follower.on_slice(old, first)
    assert seen.devices == {"n": 2}
    seen.follower.on_slice(None, make_slice("n", "1", "2", name="more", generation=2, total=2))
    assert seen.devices == {"n": 3}


def test_a_node_has_no_devices_once_its_driver_is_gone(seen: Seen) -> None:
    seen.follower.on_slice(make_slice("n", "0", "1"), None)
    assert seen.devices == {"n": 0}


def test_a_device_is_foreign_while_a_claim_of_another_pod_holds_it(seen: Seen) -> None:
    claim = make_allocated("c", "n", "0", users=("other",))
    seen.follower.on_claim(None, claim)
    assert seen.foreign == {"n": 1.0}
    seen.follower.on_claim(claim, make_allocated("c", "n"))
    assert seen.foreign == {"n": 0.0}


def test_a_claim_may_be_known_before_its_device(seen: Seen) -> None:
    seen.follower.on_claim(None, make_allocated("c", "m", "0", users=("other",)))
    seen.follower.on_slice(None, make_slice("m", "0"))
    assert seen.foreign == {"m": 1.0}


def test_a_device_of_a_task_is_foreign_from_the_end_of_its_pod_until_it_is_given_back(seen: Seen) -> None:
    pod = waiting()
    seen.follower.on_pod(None, pod)
    claim = make_allocated("c", "n", "0", users=(pod.uid,))
    seen.follower.on_claim(None, claim)
    assert seen.foreign == {}
    seen.follower.on_pod(bound(), succeeded())
    assert seen.foreign == {"n": 1.0}
    seen.follower.on_claim(claim, None)
    assert seen.foreign == {"n": 0.0}


def test_a_pod_of_the_same_name_takes_the_place_of_another_one(seen: Seen) -> None:
    old = waiting()
    seen.follower.on_pod(None, old)
    seen.follower.on_claim(None, make_allocated("c", "n", "0", users=(old.uid,)))
    seen.follower.on_pod(old, replace(bound(node="n"), uid="another"))
    assert seen.foreign == {"n": 1.0}


def test_foreign_devices_are_counted_by_class(seen: Seen) -> None:
    counts: list[dict[str, float]] = []
    follower = NodeDevices(lambda *_: None, lambda _, foreign: counts.append(foreign))
    follower.on_slice(None, make_slice("n", "0", "1"))
    follower.on_claim(None, make_allocated("c", "n", "0", "1", users=("other",)))
    assert counts == [{DRIVER: 2.0}]


def test_a_device_that_a_driver_lists_twice_counts_once_and_may_vanish(seen: Seen) -> None:
    twice = [make_slice("m", "0", name=name, total=2) for name in ("first", "second")]
    for one in twice:
        seen.follower.on_slice(None, one)
    assert seen.devices["m"] == 1
    for one in twice:
        seen.follower.on_slice(one, None)
    assert seen.devices["m"] == 0
