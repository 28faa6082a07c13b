import dataclasses

import pytest

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.scenario import ScenarioError, parse_scenario

GOOD = "{name: edge, count: 2, tier: edge, gpu: t4-8b, uplink_mbps: 100, rtt_ms: 5}"
LATE = "{name: late, count: 1, tier: cloud, gpu: t4-8b, uplink_mbps: 300, rtt_ms: 40, gpus: 4, joins_at: 0.5}"


def test_groups_become_nodes_in_si_units():
    nodes = parse_scenario(f"name: small\ngroups: [{GOOD}]").nodes()
    assert [(node.name, node.tier, node.model) for node in nodes] == [
        ("edge-0", "edge", "chat"),
        ("edge-1", "edge", "chat"),
    ]
    assert nodes[0].gpu.product == "Tesla-T4"
    assert nodes[0].link.bandwidth_bps == 100e6
    assert nodes[0].link.rtt_s == 0.005


def test_what_a_scenario_leaves_out_stays_as_it_was():
    node = parse_scenario(f"name: small\ngroups: [{GOOD}]").nodes()[0]
    assert (node.gpus, node.slots, node.joins_at, node.resident) == (1, node.gpu.slots, 0.0, False)
    assert node.gpu is CATALOGUE["t4-8b"]


def test_a_scenario_may_keep_models_loaded_and_start_pods_at_once():
    node = parse_scenario(f"name: small\npod_start_s: 0\nresident: true\ngroups: [{GOOD}]").nodes()[0]
    assert node.resident
    assert node.gpu == dataclasses.replace(CATALOGUE["t4-8b"], pod_start_s=0.0)


def test_a_group_may_have_several_gpus_and_join_later():
    text = f"name: small\ngroups: [{GOOD}, {LATE}]"
    late = parse_scenario(text).nodes()[-1]
    assert (late.name, late.gpus, late.slots, late.joins_at) == ("late-0", 4, 16, 0.5)
    assert [(change.at_s, change.node) for change in parse_scenario(text).changes(60.0)] == [(30.0, "late-0")]


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("workload: {slack: [3, 1]}", r"workload: .*slack must be \[low, high\], not \[3.0, 1.0\]"),
        ("workload: {slack: [1, 3], deadline_s: [2, 6]}", "workload: .*not both"),
        ("workload: {payload_law: normal}", "workload.payload_law: .*'fixed' or 'exponential'"),
        ("workload: {payload_share: 30}", "workload.payload_share: .*less than or equal to 1"),
        ("workload: {payload: 30}", "workload.payload: Extra"),
        ("pod_start_s: -1", "pod_start_s: .*greater than or equal to 0"),
        ("pod_start_s: 1e9", "pod_start_s: .*less than or equal to 3600"),
        ("workload: {payload_mb: 1e12}", "workload.payload_mb: .*less than or equal to 10000"),
        ("workload: {hint_log_error: 1000}", "workload.hint_log_error: .*less than 10"),
        ("events: [{kind: flood, at: 0, groups: [edge]}]", r"events\[0\].kind: .*'loss', 'bandwidth' or 'speed'"),
        ("events: [{kind: loss, at: 5, groups: [edge]}]", r"events\[0\].at: .*less than or equal to 1"),
        ("events: [{kind: loss, at: 0.5}]", r"events\[0\]: .*name the groups or the nodes"),
        ("events: [{kind: loss, at: 0.5, until: 0.5, groups: [edge]}]", r"events\[0\]: .*until must be later than at"),
        ("events: [{kind: loss, at: 0.5, groups: [edge], factor: 1}]", "a loss has neither factor nor gradual"),
        ("events: [{kind: speed, at: 0.5, groups: [edge]}]", "factor is missing"),
        ("events: [{kind: speed, at: 0.5, groups: [edge], factor: 0}]", r"events\[0\].factor: .*greater than 0"),
        ("events: [{kind: speed, at: 0, groups: [edge], factor: 1, gradual: true}]", "a gradual event needs until"),
        ("events: [{kind: loss, at: 0.5, groups: [fog]}]", r"events\[0\].groups: no group fog; known: edge"),
        ("events: [{kind: loss, at: 0.5, nodes: [edge-2]}]", r"events\[0\].nodes: no node edge-2"),
        ("inventory: {models: {}, machines: [{model: T4, gpus: 1, count: 1}]}", "does not define T4"),
        (
            "inventory: {models: {T4: {gpu: t5, tier: edge, uplink_mbps: 1, rtt_ms: 1}}}",
            "inventory.models.T4.gpu: .*no GPU type 't5'",
        ),
    ],
)
def test_a_wrong_section_names_the_field(section, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(f"name: x\ngroups: [{GOOD}]\n{section}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("groups: [" + GOOD.replace("edge, gpu", "fog, gpu") + "]\nname: x", r"groups\[0\].tier: .*'edge' or 'cloud'"),
        (
            "name: x\ngroups: [" + GOOD.replace("t4-8b", "t5") + "]",
            r"groups\[0\].gpu: .*no GPU type 't5'; known: a10-8b",
        ),
        ("name: x\ngroups: [" + GOOD.replace("count: 2", "count: 0") + "]", r"groups\[0\].count: .*greater"),
        ("name: x\ngroups: [" + GOOD.replace("100", ".inf") + "]", r"groups\[0\].uplink_mbps: .*finite"),
        ("name: x\ngroups: [" + GOOD.replace("100", ".nan") + "]", r"groups\[0\].uplink_mbps: .*finite"),
        ("name: x\ngroups: [" + GOOD.replace("100", "1e-9") + "]", r"groups\[0\].uplink_mbps: .*greater than or equal"),
        ("name: x\ngroups: [" + GOOD.replace("rtt_ms: 5", "rtt_ms: 1e12") + "]", r"groups\[0\].rtt_ms: .*less than"),
        (
            "name: x\ngroups: [" + GOOD.replace("rtt_ms", "rtt") + "]",
            r"groups\[0\].rtt_ms: Field required; .*rtt: Extra",
        ),
        (f"name: x\ngroups: [{GOOD}, {GOOD}]", "same name"),
        ("name: x\ngroups: []", "at least one group"),
        (f"name: x\ngroups: [{LATE}]", "no group is present from the start"),
        (
            f"name: x\ngroups: [{GOOD.replace('2', '9000')}, {LATE.replace('count: 1', 'count: 9000')}]",
            "more than 10000 nodes",
        ),
        (f"groups: [{GOOD}]", "name: Field required"),
        ("just words", "the whole file"),
        ("a: [", "not YAML"),
        ("description: 2026-02-30", "not YAML: day"),
        ("[" * 100_000, "not YAML: maximum recursion"),
    ],
)
def test_a_wrong_scenario_names_the_field(text, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(text)
