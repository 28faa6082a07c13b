import pytest

from perllm_lab.hardware.inventory import InventoryError, Machines, parse_inventory
from perllm_lab.hardware.scenario import ScenarioError, parse_scenario, with_machines

HEADER = "sn,cpu_milli,memory_mib,gpu,model\n"
SCENARIO = """
name: fleet
inventory:
  models:
    T4: {gpu: t4-8b, tier: edge, uplink_mbps: 100, rtt_ms: 5}
    G2: {gpu: a10-8b, tier: cloud, uplink_mbps: 1000, rtt_ms: 40}
  machines: [{model: T4, gpus: 2, count: 3}, {model: G2, gpus: 8, count: 1}]
"""


def test_machines_are_counted_by_model_and_gpus_and_those_without_left_out():
    lines = [HEADER, "n-0,96000,393216,8,G2\n", "n-1,64000,262144,0,\n", "n-2,96000,1,2,T4\n", "n-3,96000,2,2,T4\n"]
    assert parse_inventory(lines) == [
        Machines(model="G2", gpus=8, count=1),
        Machines(model="T4", gpus=2, count=2),
    ]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("", "no machine has a GPU"),
        ("n-0,1,1,0,\n", "no machine has a GPU"),
        ("n-0,1,1,2\n", "line 2: expected 5 fields, found 4"),
        ("n-0,1,1,two,T4\n", "line 2: gpu must be a whole number of at most 64, not 'two'"),
        ("n-0,1,1,2,T4\nn-1,1,1,-1,T4\n", "line 3: gpu must be"),
        (f"n-0,1,1,{'9' * 5000},T4\n", "line 2: gpu must be"),
        ("n-0,1,1,2, \n", "line 2: a machine with GPUs needs a model"),
    ],
)
def test_a_wrong_inventory_names_the_line(rows, complaint):
    with pytest.raises(InventoryError, match=complaint):
        parse_inventory((HEADER + rows).splitlines(keepends=True))


def test_a_file_with_other_columns_is_refused():
    with pytest.raises(InventoryError, match="line 1: expected the header sn,cpu_milli"):
        parse_inventory(["name,gpus\n"])


def test_machines_become_nodes_with_several_gpus_of_the_type_the_scenario_takes_them_for():
    nodes = parse_scenario(SCENARIO).nodes()
    assert [node.name for node in nodes] == ["t4-x2-0", "t4-x2-1", "t4-x2-2", "g2-x8-0"]
    assert (nodes[0].tier, nodes[0].gpus, nodes[0].slots) == ("edge", 2, 8)
    assert (nodes[3].gpu.key, nodes[3].tier, nodes[3].slots) == ("a10-8b", "cloud", 128)


def test_other_machines_take_the_place_of_those_in_the_scenario():
    scenario = with_machines(parse_scenario(SCENARIO), [Machines(model="G2", gpus=4, count=2)])
    assert [node.name for node in scenario.nodes()] == ["g2-x4-0", "g2-x4-1"]


def test_a_model_the_scenario_does_not_know_is_named():
    with pytest.raises(ScenarioError, match=r"inventory: .*define H100, P100; defined: G2, T4"):
        with_machines(
            parse_scenario(SCENARIO), [Machines(model=model, gpus=1, count=1) for model in ("P100", "T4", "H100")]
        )


def test_a_scenario_without_an_inventory_takes_no_machines():
    scenario = parse_scenario(
        "name: plain\ngroups: [{name: a, count: 1, tier: edge, gpu: t4-8b, uplink_mbps: 1, rtt_ms: 1}]"
    )
    with pytest.raises(ScenarioError, match="plain takes no inventory"):
        with_machines(scenario, [Machines(model="T4", gpus=1, count=1)])
