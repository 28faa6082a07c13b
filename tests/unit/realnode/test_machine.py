import random
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from realnode.images.recipes import read_index_settings
from realnode.machine import demands
from realnode.machine.cgroups import make_cgroup, remove_cgroups
from realnode.machine.network import choose_network

NOBODY = 2**30


def test_pods_and_the_link_share_no_address() -> None:
    network = choose_network([], random.Random(1))
    assert not network.pods.overlaps(network.link)
    assert {ip_address(network.host), ip_address(network.machine)} == set(network.link.hosts())


def test_a_network_in_use_is_not_chosen_again() -> None:
    taken: list[IPv4Address] = []
    for _ in range(512):
        taken.append(IPv4Address(choose_network(taken, random.Random(1)).host))
    assert len(set(taken)) == 512
    with pytest.raises(LookupError, match="in use"):
        choose_network(taken, random.Random(1))


def test_a_cgroup_is_made_in_every_hierarchy_and_takes_over_what_processes_need(tmp_path: Path) -> None:
    for name in ("cpu", "cpuset"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1")
    name = make_cgroup(NOBODY, tmp_path)
    assert (tmp_path / "cpu" / name).is_dir()
    assert (tmp_path / "cpuset" / name / "cpuset.cpus").read_text() == "0-1"


def test_cgroups_of_labs_that_run_no_more_are_removed_and_those_of_others_kept(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    for name in (f"perllm-lab-{NOBODY}/pods/pod", "perllm-lab-1", "other"):
        (tmp_path / name).mkdir(parents=True)
    remove_cgroups(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"perllm-lab-1", "other"}


def test_what_a_real_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands.os, "geteuid", lambda: 0)
    assert demands.find_hindrance(["sh", "no-such-program"]) == "not installed: no-such-program"
    monkeypatch.setattr(demands.os, "geteuid", lambda: 1000)
    assert "root" in str(demands.find_hindrance(["sh"]))


def test_only_the_package_index_of_pip_settings_is_handed_to_a_build() -> None:
    listing = ["global.cert='/etc/ca.crt'", ":env:.index-url='https://index.invalid/simple'", "install.user='true'"]
    assert read_index_settings(listing) == {"cert": "/etc/ca.crt", "index-url": "https://index.invalid/simple"}
