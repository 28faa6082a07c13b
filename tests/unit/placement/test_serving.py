"""Model servers in the fleet: which nodes serve a model, and how much room they have."""

from dataclasses import replace

import numpy as np
import pytest

from perllm.api.task import Tier
from perllm.placement.demand import NO_POD
from perllm.placement.serving import NOTHING, UNKNOWN_SLOTS, Serving
from unit.placement.cluster_of import CLOUD, EDGE, make_node, make_request, make_setting
from unit.scheduling.schedulers import UPLINK, Made, make_scheduler

SERVING = Serving(models=frozenset({"m"}), slots=8.0)


@pytest.fixture
def made() -> Made:
    return make_scheduler(make_node("a", slots=2), make_node("b", slots=2), now_s=lambda: 10.0)


def serves(made: Made, model: str = "m") -> list[str]:
    names, rows = made.parts.fleet.all_nodes()
    return [name for name, is_so in zip(names, made.parts.fleet.serves(model, rows), strict=True) if is_so]


def slots(made: Made, name: str = "a") -> float:
    return float(made.parts.fleet.served_slots(np.array([made.parts.fleet.row(name)]))[0])


def test_a_node_serves_the_models_of_its_ready_servers(made: Made) -> None:
    made.scheduler.put_serving("a", SERVING)
    assert (serves(made), serves(made, "other"), slots(made)) == (["a"], [], 8.0)
    made.scheduler.put_serving("a", Serving(models=frozenset({"other"}), slots=8.0))
    assert (serves(made), serves(made, "other")) == ([], ["a"])
    made.scheduler.put_serving("a", NOTHING)
    assert (serves(made, "other"), slots(made)) == ([], np.inf)


def test_what_a_node_serves_may_be_known_before_the_node(made: Made) -> None:
    made.scheduler.put_serving("c", SERVING)
    assert serves(made) == []
    made.scheduler.put_node(make_node("c"), UPLINK)
    assert serves(made) == ["c"]


def test_servers_that_do_not_say_how_many_slots_they_have_get_a_usual_number(made: Made) -> None:
    made.scheduler.put_serving("a", Serving(models=frozenset({"m"})))
    assert slots(made) == UNKNOWN_SLOTS


def test_a_task_is_unserved_if_no_node_of_its_tiers_has_a_server() -> None:
    setting = make_setting(make_node("a"), make_node("c", CLOUD))

    def is_unserved(*tiers: Tier) -> bool:
        request = replace(make_request(tiers=frozenset(tiers), demand=NO_POD), is_served=True)
        return setting.placer.choose(request).eligibility.is_unserved

    assert is_unserved(EDGE, CLOUD)
    setting.fleet.put_serving("a", SERVING)
    assert not is_unserved(EDGE, CLOUD)
    assert is_unserved(CLOUD)


def test_a_cordoned_node_takes_no_requests(made: Made) -> None:
    made.scheduler.put_serving("a", SERVING)
    made.scheduler.put_node(make_node("a", slots=2, is_open=False), UPLINK)
    assert slots(made) == 0.0


def test_a_model_that_is_served_counts_as_loaded(made: Made) -> None:
    row = np.array([made.parts.fleet.row("a")])
    assert made.parts.learner.laws("m", row).cold(row, 10.0)[0] > 0.0
    made.scheduler.put_serving("a", SERVING)
    assert made.parts.learner.laws("m", row).cold(row, 10.0)[0] == 0.0


def test_a_model_that_its_server_would_have_to_load_counts_as_cold_until_it_is_loaded(made: Made) -> None:
    row = np.array([made.parts.fleet.row("a")])
    for unloaded, cold in ((frozenset(), 0.0), (SERVING.models, 1.0), (frozenset(), 0.0)):
        made.scheduler.put_serving("a", replace(SERVING, unloaded=unloaded))
        assert made.parts.learner.laws("m", row).cold(row, 10.0)[0] == cold


def test_foreign_requests_are_part_of_the_occupancy_until_they_end(made: Made) -> None:
    row = np.array([made.parts.fleet.row("a")])
    made.scheduler.put_serving("a", Serving(models=frozenset({"m"}), slots=8.0, foreign=3.0))
    assert made.parts.ledger.loads(row, 10.0).running[0] == 3.0
    made.scheduler.put_serving("a", SERVING)
    assert made.parts.ledger.loads(row, 10.0).running[0] == 0.0
