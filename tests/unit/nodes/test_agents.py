"""What the operator makes of agents: what their servers offer, and when they count as gone."""

import asyncio
from typing import Any

import pytest

from perllm.api import names
from perllm.api.node_profile import ServingStatus
from perllm.nodes.agents import DURATION_S, MARGIN_S, NodeAgents, SeenLease, read_lease, read_offer
from perllm.placement.serving import NOTHING, Serving

EXPIRY_S = DURATION_S + MARGIN_S
SERVER = {"url": "http://127.0.0.1:8000/v1", "engine": "vllm", "ready": True, "models": ["m"], "slots": 8}
OFFER = Serving(models=frozenset({"m"}), slots=8.0)


class FakeScheduler:
    def __init__(self) -> None:
        self.servings: dict[str, Serving] = {}
        self.knows_servers = False

    def put_serving(self, node: str, serving: Serving) -> None:
        self.servings[node] = serving

    def note_servers_known(self) -> None:
        self.knows_servers = True


class Agents:
    """The agents of a cluster, at a time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.can_see = True
        self.ready = {"n"}
        self.lost: list[str] = []
        self.shown: list[ServingStatus | None] = []
        self.scheduler: Any = FakeScheduler()
        self.agents = NodeAgents(
            self.scheduler,
            lambda is_lost: self.lost.extend(node for node in ("n",) if is_lost(node)),
            show=lambda _, serving: self.shown.append(serving),
            can_see=lambda: self.can_see,
            is_ready=lambda node: node in self.ready,
            now_s=lambda: self.now_s,
            unix_now=lambda: self.now_s + 1000.0,
        )
        self.lease: SeenLease | None = None

    def offer(self, *servers: dict[str, Any]) -> None:
        self.agents.on_offer(None, read_offer({"metadata": {"name": "n"}, "status": {"servers": list(servers)}}))

    def renew(self, age_s: float = 0.0) -> None:
        new = SeenLease("n", self.now_s + 1000.0 - age_s, DURATION_S)
        self.agents.on_lease(self.lease, new)
        self.lease = new

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.agents.examine()

    def count(self) -> tuple[int, int]:
        """Return how many agents are alive, and how many are not."""
        return self.agents.count(is_alive=True), self.agents.count(is_alive=False)

    @property
    def serving(self) -> Serving:
        found: Serving = self.scheduler.servings.get("n", NOTHING)
        return found


def test_agents_that_are_gone_are_counted_unless_their_nodes_are_gone_too() -> None:
    cluster = Agents()
    assert cluster.count() == (0, 0)
    cluster.renew()
    assert cluster.count() == (1, 0)
    cluster.wait(EXPIRY_S)
    assert cluster.count() == (0, 1)
    cluster.ready.clear()
    assert cluster.count() == (0, 0)


def test_a_node_serves_while_its_agent_renews_its_lease() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    assert cluster.serving == NOTHING
    cluster.renew()
    assert cluster.serving == OFFER
    cluster.wait(EXPIRY_S)
    assert cluster.serving == NOTHING
    assert cluster.lost
    cluster.renew()
    assert cluster.serving == OFFER


def test_what_servers_that_are_not_ready_offer_does_not_count() -> None:
    cluster = Agents()
    cluster.renew()
    cluster.offer(SERVER, {**SERVER, "ready": False, "models": ["other"]})
    assert cluster.serving == OFFER


def test_a_model_that_no_server_of_the_node_has_in_memory_would_have_to_be_loaded() -> None:
    cluster = Agents()
    cluster.renew()
    cluster.offer({**SERVER, "models": ["m", "n"], "unloaded": ["m", "n"]}, {**SERVER, "models": ["n"]})
    assert (cluster.serving.models, cluster.serving.unloaded) == ({"m", "n"}, {"m"})


def test_the_slots_of_a_node_are_unknown_if_those_of_one_server_are() -> None:
    cluster = Agents()
    cluster.renew()
    cluster.offer(SERVER, {key: value for key, value in SERVER.items() if key != "slots"})
    assert cluster.serving.slots is None


def test_no_lease_expires_while_renewals_cannot_be_seen() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew()
    cluster.can_see = False
    cluster.wait(60.0)
    cluster.can_see = True
    cluster.wait(DURATION_S)
    assert cluster.serving == OFFER
    assert cluster.lost == []


def test_a_lease_that_had_expired_does_not_count_again_because_renewals_cannot_be_seen() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew()
    cluster.wait(EXPIRY_S + 1)
    cluster.can_see = False
    cluster.wait(3.0)
    cluster.can_see = True
    cluster.wait(1.0)
    assert cluster.serving == NOTHING
    cluster.renew()
    assert cluster.serving == OFFER


def test_at_the_start_it_is_not_known_which_leases_have_expired() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew(age_s=3600.0)  # by the clock of the node
    cluster.wait(6.0)
    cluster.can_see = False
    cluster.wait(60.0)
    cluster.can_see = True
    cluster.wait(5.0)
    assert cluster.lost == []


def test_agents_have_time_to_renew_their_leases_before_models_count_as_unserved() -> None:
    agents = Agents()
    agents.wait(14.0)
    agents.can_see = False
    agents.wait(5.0)
    assert not agents.scheduler.knows_servers
    agents.can_see = True
    agents.wait(1.0)
    assert agents.scheduler.knows_servers


@pytest.mark.looptime
async def test_the_time_as_a_standby_does_not_count() -> None:
    agents = Agents()
    agents.now_s += 1000.0
    work = asyncio.create_task(agents.agents.run())
    await asyncio.sleep(1.5)
    work.cancel()
    assert not agents.scheduler.knows_servers
    assert agents.lost == []


def test_no_lease_expires_while_the_operator_is_stopped() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew()
    cluster.wait(20)
    cluster.now_s += 600.0
    cluster.agents.examine()
    assert (cluster.serving, cluster.lost) == (OFFER, [])
    cluster.wait(EXPIRY_S - 20)
    assert (cluster.serving, set(cluster.lost)) == (NOTHING, {"n"})


def test_a_lease_that_had_expired_before_it_was_seen_does_not_count() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew(age_s=3600.0)
    cluster.wait(MARGIN_S)
    assert cluster.serving == NOTHING


def test_a_new_agent_may_have_a_clock_that_is_behind() -> None:
    cluster = Agents()
    cluster.wait(EXPIRY_S)
    cluster.offer(SERVER)
    cluster.lost.clear()
    cluster.renew(age_s=3600.0)
    cluster.wait(9.0)
    assert (cluster.serving, cluster.lost) == (OFFER, [])


def test_a_lease_is_recognised_by_its_name() -> None:
    spec = {"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 30}
    own = read_lease({"metadata": {"name": f"{names.AGENT_LEASE_PREFIX}n"}, "spec": spec})
    assert own is not None
    assert (own.node, own.duration_s) == ("n", 30.0)
    assert read_lease({"metadata": {"name": "perllm"}, "spec": spec}) is None


@pytest.mark.parametrize("spec", [{}, {"renewTime": 5}, {"renewTime": "soon"}])
def test_a_lease_without_a_time_is_none(spec: dict[str, Any]) -> None:
    assert read_lease({"metadata": {"name": f"{names.AGENT_LEASE_PREFIX}n"}, "spec": spec}) is None


def test_people_see_what_a_node_serves_while_its_agent_is_alive() -> None:
    agents = Agents()
    status = {"ready": "1/1", "models": ["m"], "running": 5, "foreign": 2, "servers": [SERVER]}
    offer = read_offer({"metadata": {"name": "n"}, "status": status})

    agents.renew()
    agents.agents.on_offer(None, offer)
    assert agents.shown[-1] == ServingStatus(ready="1/1", models=("m",), busy="5/8", foreign=2)
    agents.wait(EXPIRY_S + 1)
    assert agents.shown[-1] == ServingStatus()
    agents.agents.on_offer(offer, None)
    assert agents.shown[-1] is None


@pytest.mark.parametrize(("engine", "is_one_batch"), [("vllm", True), ("sglang", True), ("ollama", False)])
def test_the_models_of_one_engine_share_a_batch_unless_it_begins_a_process_for_each(
    engine: str, is_one_batch: bool
) -> None:
    servers = [SERVER | {"models": ["m", "adapter"], "engine": engine}, SERVER | {"models": ["one"], "engine": "vllm"}]
    serving = read_offer({"metadata": {"name": "n"}, "status": {"servers": servers}}).serving
    assert serving.batches == (frozenset({frozenset({"m", "adapter"})}) if is_one_batch else frozenset())


@pytest.mark.looptime
async def test_what_a_replica_on_standby_has_waited_extends_no_lease() -> None:
    cluster = Agents()
    cluster.now_s += 3600.0
    cluster.offer(SERVER)
    cluster.renew()
    examining = asyncio.create_task(cluster.agents.run())
    await asyncio.sleep(0)
    cluster.wait(EXPIRY_S + 1)
    examining.cancel()
    assert cluster.serving == NOTHING


def test_nothing_more_is_shown_of_a_node_whose_servers_are_gone() -> None:
    agents = Agents()
    agents.offer(SERVER)
    agents.renew()
    agents.agents.on_offer(read_offer({"metadata": {"name": "n"}, "status": {"servers": [SERVER]}}), None)
    assert agents.scheduler.servings == {"n": NOTHING}
    shown = len(agents.shown)
    agents.wait(3)
    assert len(agents.shown) == shown


def test_a_node_that_is_gone_is_not_examined_any_more_whichever_of_its_objects_went_first() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.renew()
    cluster.agents.on_lease(cluster.lease, None)
    cluster.agents.on_offer(read_offer({"metadata": {"name": "n"}, "status": {"servers": [SERVER]}}), None)
    cluster.shown.clear()
    cluster.wait(5.0)
    assert cluster.shown == []


def test_what_a_node_serves_is_shown_repeatedly_even_while_its_agent_is_not_alive() -> None:
    cluster = Agents()
    cluster.offer(SERVER)
    cluster.shown.clear()
    cluster.wait(1.0)
    assert cluster.shown == [ServingStatus()]
