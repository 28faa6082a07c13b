import pytest

from perllm_lab.hardware.scenario import ScenarioError, parse_scenario

GOOD = "{name: edge, count: 2, tier: edge, gpu: t4-8b, uplink_mbps: 100, rtt_ms: 5}"


def test_groups_become_nodes_in_si_units():
    nodes = parse_scenario(f"name: small\ngroups: [{GOOD}]").nodes()
    assert [(node.name, node.tier, node.model) for node in nodes] == [
        ("edge-0", "edge", "chat"),
        ("edge-1", "edge", "chat"),
    ]
    assert nodes[0].gpu.product == "Tesla-T4"
    assert nodes[0].link.bandwidth_bps == 100e6
    assert nodes[0].link.rtt_s == 0.005


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
        (
            "name: x\ngroups: [" + GOOD.replace("rtt_ms", "rtt") + "]",
            r"groups\[0\].rtt_ms: Field required; .*rtt: Extra",
        ),
        (f"name: x\ngroups: [{GOOD}, {GOOD}]", "same name"),
        ("name: x\ngroups: []", "at least one group"),
        (f"groups: [{GOOD}]", "name: Field required"),
        ("just words", "the whole file"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_scenario_names_the_field(text, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(text)
