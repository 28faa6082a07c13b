import pytest

from perllm_lab.hardware.events import GRADUAL_STEPS, ChangeKind, FleetEvent, NodeChange, timeline

MEMBERS = {"edge": ["edge-0", "edge-1"], "cloud": ["cloud-0"]}


def changes(*events, joins_at=None, run_s=1000.0):
    return timeline([FleetEvent(**event) for event in events], MEMBERS, joins_at or {}, run_s)


def test_a_loss_takes_all_nodes_of_a_group_until_they_return():
    assert changes({"kind": "loss", "at": 0.1, "until": 0.4, "groups": ["edge"]}) == [
        NodeChange(100.0, "edge-0", ChangeKind.LOSS),
        NodeChange(100.0, "edge-1", ChangeKind.LOSS),
        NodeChange(400.0, "edge-0", ChangeKind.RETURN),
        NodeChange(400.0, "edge-1", ChangeKind.RETURN),
    ]


def test_a_loss_without_an_end_is_for_good():
    assert changes({"kind": "loss", "at": 0.5, "nodes": ["cloud-0"]}) == [NodeChange(500.0, "cloud-0", ChangeKind.LOSS)]


def test_a_node_lost_twice_at_once_returns_when_both_losses_are_over():
    both = changes(
        {"kind": "loss", "at": 0.1, "until": 0.5, "groups": ["cloud"]},
        {"kind": "loss", "at": 0.3, "until": 0.7, "nodes": ["cloud-0"]},
    )
    assert both == [NodeChange(100.0, "cloud-0", ChangeKind.LOSS), NodeChange(700.0, "cloud-0", ChangeKind.RETURN)]


def test_factors_in_force_at_once_are_multiplied_and_end_each_at_its_time():
    found = changes(
        {"kind": "speed", "at": 0.0, "until": 0.6, "groups": ["cloud"], "factor": 0.5},
        {"kind": "speed", "at": 0.2, "until": 0.4, "nodes": ["cloud-0"], "factor": 0.6},
        {"kind": "bandwidth", "at": 0.2, "nodes": ["cloud-0"], "factor": 0.1},
    )
    assert [(each.at_s, each.factor) for each in found if each.kind is ChangeKind.SPEED] == [
        (0.0, 0.5),
        (200.0, pytest.approx(0.3)),
        (400.0, 0.5),
        (600.0, 1.0),
    ]
    assert [each for each in found if each.kind is ChangeKind.BANDWIDTH] == [
        NodeChange(200.0, "cloud-0", ChangeKind.BANDWIDTH, 0.1)
    ]


def test_a_gradual_event_drifts_evenly_and_stays():
    found = changes({"kind": "bandwidth", "at": 0.2, "until": 0.7, "groups": ["cloud"], "factor": 0.5, "gradual": True})
    assert len(found) == GRADUAL_STEPS
    for change in found:
        assert change.factor == pytest.approx(1.0 - 0.5 * (change.at_s - 200.0) / 500.0)
    assert (found[-1].at_s, found[-1].factor) == (700.0, 0.5)


def test_nodes_that_join_later_are_changes_too():
    assert changes(joins_at={"edge-0": 0.0, "cloud-0": 0.5}) == [NodeChange(500.0, "cloud-0", ChangeKind.JOIN)]


def test_changes_come_in_order_of_time():
    found = changes(
        {"kind": "loss", "at": 0.6, "groups": ["edge"]},
        {"kind": "speed", "at": 0.1, "groups": ["cloud"], "factor": 0.5},
        joins_at={"cloud-0": 0.3},
    )
    assert [change.at_s for change in found] == [100.0, 300.0, 600.0, 600.0]
