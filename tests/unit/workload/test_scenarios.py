from collections import Counter

import pytest

from perllm_lab.hardware.scenario import ScenarioError
from perllm_lab.workload.scenarios import load_scenario, scenario_names


def test_modern_has_20_edge_and_4_cloud_nodes():
    nodes = load_scenario("modern").nodes()
    assert Counter(node.tier for node in nodes) == {"edge": 20, "cloud": 4}
    assert len({node.name for node in nodes}) == 24


def test_paper_has_five_edge_cpu_servers_and_one_a100():
    nodes = load_scenario("paper").nodes()
    assert [node.link.bandwidth_bps for node in nodes] == [100e6] * 5 + [300e6]
    assert nodes[-1].gpu.key == "a100-33b"


def test_a_file_can_be_loaded_and_its_name_is_in_the_error(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine")
    with pytest.raises(ScenarioError, match=r"mine\.yaml: .*groups: Field required"):
        load_scenario(file)


def test_an_unknown_scenario_lists_the_known_ones():
    assert scenario_names() == ["modern", "paper"]
    with pytest.raises(ScenarioError, match="Known: modern, paper"):
        load_scenario("futuristic")
