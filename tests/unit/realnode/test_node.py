import random
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from realnode import requirements
from realnode.cgroups import make_cgroup, remove_cgroups
from realnode.images.recipes import read_index_settings
from realnode.network import choose_network

NO_PROCESS = 2**30


def test_pods_and_the_link_share_no_address() -> None:
    network = choose_network([], random.Random(1))
    assert not network.pods.overlaps(network.link)
    assert {ip_address(network.host), ip_address(network.node)} == set(network.link.hosts())


def test_only_a_network_that_is_not_in_use_is_chosen() -> None:
    first = IPv4Address("198.18.0.7")
    in_use = [first + 256 * number for number in range(512)]

    assert first in choose_network(in_use[1:], random.Random(1)).subnet
    with pytest.raises(LookupError, match="in use"):
        choose_network(in_use, random.Random(1))


def test_a_cgroup_is_created_in_every_hierarchy_with_the_settings_that_processes_need(tmp_path: Path) -> None:
    for name in ("cpu", "cpuset"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1")
    name = make_cgroup(NO_PROCESS, tmp_path)
    assert (tmp_path / "cpu" / name).is_dir()
    assert (tmp_path / "cpuset" / name / "cpuset.cpus").read_text() == "0-1"


def test_only_cgroups_of_owners_that_have_ended_are_removed(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    for name in (f"perllm-lab-{NO_PROCESS}/pods/pod", "perllm-lab-1", "other"):
        (tmp_path / name).mkdir(parents=True)
    remove_cgroups(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"perllm-lab-1", "other"}


def test_what_a_real_node_lacks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 0)
    assert requirements.find_obstacle(["sh", "no-such-program"]) == "not installed: no-such-program"
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    assert "root" in str(requirements.find_obstacle(["sh"]))


def test_only_the_settings_of_the_package_index_are_passed_to_a_build() -> None:
    listing = ["global.cert='/etc/ca.crt'", ":env:.index-url='https://index.invalid/simple'", "install.user='true'"]
    assert read_index_settings(listing) == {"cert": "/etc/ca.crt", "index-url": "https://index.invalid/simple"}
