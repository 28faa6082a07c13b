from collections import Counter

import pytest

from perllm_lab.hardware.events import ChangeKind
from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.workload.scenarios import load_scenario, scenario_names
from perllm_lab.workload.synthetic import LAWS

NAMES = ["bursty", "demo", "drift", "inventory", "modern", "outage", "paper", "tight"]
INVENTORY = "sn,cpu_milli,memory_mib,gpu,model\nn-0,96000,393216,8,G2\nn-1,64000,262144,0,\nn-2,96000,393216,2,T4\n"


def test_modern_has_20_edge_and_4_cloud_nodes():
    nodes = load_scenario("modern").nodes()
    assert Counter(node.tier for node in nodes) == {"edge": 20, "cloud": 4}
    assert len({node.name for node in nodes}) == 24


def test_paper_has_five_edge_cpu_servers_and_one_a100_with_their_models_loaded():
    nodes = load_scenario("paper").nodes()
    assert [node.link.bandwidth_bps for node in nodes] == [100e6] * 5 + [300e6]
    assert nodes[-1].gpu.key == "a100-33b"
    assert {(node.gpu.pod_start_s, node.resident) for node in nodes} == {(0.0, True)}


@pytest.mark.parametrize("name", ["tight", "bursty", "drift", "outage"])
def test_the_others_have_the_nodes_of_modern_at_the_start(name):
    there = [node for node in load_scenario(name).nodes() if not node.joins_at]
    assert there == load_scenario("modern").nodes()


def test_what_happens_in_drift_and_outage():
    kinds = {name: {change.kind for change in load_scenario(name).changes(3600.0)} for name in NAMES}
    assert kinds.pop("drift") == {ChangeKind.BANDWIDTH, ChangeKind.SPEED, ChangeKind.JOIN}
    assert kinds.pop("outage") == {ChangeKind.LOSS, ChangeKind.RETURN, ChangeKind.BANDWIDTH}
    assert set().union(*kinds.values()) == set()


def test_the_inventory_has_the_published_machines():
    nodes = load_scenario("inventory").nodes()
    assert len(nodes) == 1213
    assert sum(node.gpus for node in nodes) == 6212
    assert {node.gpu.key: node.gpus for node in nodes if node.name.startswith("g3")} == {"a100-8b": 8}


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_asks_for_a_trace_there_is(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    assert scenario.workload.arrivals in LAWS


def test_another_inventory_may_be_given(tmp_path):
    file = tmp_path / "nodes.csv"
    file.write_text(INVENTORY)
    nodes = load_scenario("inventory", inventory=file).nodes()
    assert [(node.name, node.gpus) for node in nodes] == [("g2-x8-0", 8), ("t4-x2-0", 2)]


def test_a_scenario_may_name_an_inventory_beside_it(tmp_path):
    (tmp_path / "nodes.csv").write_text(INVENTORY)
    file = tmp_path / "mine.yaml"
    models = (f"{name}: {{gpu: t4-8b, tier: edge, uplink_mbps: 9, rtt_ms: 9}}" for name in ("T4", "G2"))
    file.write_text(f"name: mine\ninventory: {{file: nodes.csv, models: {{{', '.join(models)}}}}}")
    assert len(load_scenario(file).nodes()) == 2
    (tmp_path / "nodes.csv").write_text(INVENTORY.replace("T4", "T5"))
    with pytest.raises(ScenarioError, match=r"mine\.yaml: .*models does not define T5; defined: G2, T4"):
        load_scenario(file)


def test_an_inventory_that_is_no_csv_is_named(tmp_path):
    file = tmp_path / "nodes.csv"
    file.write_text('sn,cpu_milli,memory_mib,gpu,model\n"' + 200_000 * "x")
    with pytest.raises(ScenarioError, match=r"nodes\.csv: cannot be read as an inventory"):
        load_scenario("inventory", inventory=file)


def test_an_inventory_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ScenarioError, match=r"inventory: .*nowhere\.csv: cannot be read as an inventory"):
        load_scenario("inventory", inventory=tmp_path / "nowhere.csv")
    broken = tmp_path / "broken.csv"
    broken.write_text("name,gpus\n")
    with pytest.raises(ScenarioError, match=r"broken\.csv: line 1: expected the header"):
        load_scenario("inventory", inventory=broken)
    with pytest.raises(ScenarioError, match="modern takes no inventory"):
        load_scenario("modern", inventory=broken)


def test_an_inventory_without_machines_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ninventory: {models: {}}")
    with pytest.raises(ScenarioError, match="no nodes: inventory has neither a file nor machines"):
        load_scenario(file)


def test_a_file_can_be_loaded_and_its_name_is_in_the_error(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine")
    with pytest.raises(ScenarioError, match=r"mine\.yaml: .*groups must hold at least one group"):
        load_scenario(file)


def test_an_unknown_scenario_lists_the_known_ones():
    assert scenario_names() == NAMES
    with pytest.raises(ScenarioError, match=f"Known: {', '.join(NAMES)}"):
        load_scenario("futuristic")
