import numpy as np
import pytest

from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.placer import Placement
from unit.placement.cluster_of import CLOUD, EDGE, Setting, make_node, make_request, make_setting


def arm(placement: Placement, node: str) -> int:
    return placement.names.index(node)


class TestFleet:
    def test_knows_its_nodes_only_in_the_order_asked(self) -> None:
        fleet = make_setting(make_node("a"), make_node("b"), make_node("c")).placer.fleet
        assert fleet.known(["c", "x", "a"]) == ["c", "a"]
        assert fleet.rows(["c", "a"]).tolist() == [2, 0]

    def test_forgets_a_node_that_left_but_keeps_its_row(self) -> None:
        fleet = make_setting(make_node("a"), make_node("b")).placer.fleet
        fleet.remove("a")
        fleet.remove("never there")
        assert fleet.known(["a", "b"]) == ["b"]
        assert fleet.row("a") == 0

    def test_takes_rows_in_any_order_and_replaces_what_it_knows(self) -> None:
        fleet = Fleet()
        fleet.put(make_node("late", CLOUD, slots=8), 5, Bandwidth(300e6, 10e6))
        fleet.put(make_node("early", EDGE, slots=1), 1, Bandwidth(100e6, 0))
        fleet.put(make_node("early", EDGE, slots=2), 1, Bandwidth(50e6, 5e6))
        rows = fleet.rows(["late", "early"])
        assert fleet.slots(rows).tolist() == [8, 2]
        assert fleet.bandwidth_capacity_bps(rows).tolist() == [300e6, 50e6]
        assert fleet.bandwidth_used_bps(rows).tolist() == [10e6, 5e6]
        assert fleet.tier_allowed(rows, frozenset({EDGE})).tolist() == [False, True]


class TestChoice:
    def test_is_among_the_candidates_only(self) -> None:
        placer = make_setting(make_node("a"), make_node("b"), make_node("c")).placer
        placement = placer.choose(make_request(), ["b", "unknown"])
        assert (placement.node, list(placement.names)) == ("b", ["b"])

    @pytest.mark.parametrize("candidates", [[], ["unknown"]])
    def test_among_no_known_node_is_none(self, candidates: list[str]) -> None:
        placement = make_setting(make_node("a")).placer.choose(make_request(), candidates)
        assert (placement.node, placement.choice.refused) == (None, {})

    def test_keeps_to_the_tiers_of_the_task(self) -> None:
        placer = make_setting(make_node("e", EDGE), make_node("c", CLOUD)).placer
        placement = placer.choose(make_request(tiers=frozenset({CLOUD})))
        assert (placement.node, placement.choice.refused) == ("c", {"tier": 1})

    def test_reserves_nothing(self) -> None:
        placer = make_setting(make_node("a")).placer
        placer.choose(make_request())
        assert len(placer.ledger) == 0

    def test_sees_the_reservations_of_the_tasks_before_it(self) -> None:
        placer = make_setting(make_node("a", slots=2), make_node("b", slots=1)).placer
        nodes = []
        for number in range(4):
            placement = placer.choose(make_request(f"t{number}"))
            nodes.append(placement.node)
            if placement.node is not None:
                placer.reserve(placement, placement.node)
        assert sorted(nodes[:3], key=str) == ["a", "a", "b"]
        assert nodes[3] is None

    def test_finds_no_room_on_a_node_that_takes_no_new_pods(self) -> None:
        placer = make_setting(make_node("a", is_open=False)).placer
        placement = placer.choose(make_request())
        assert (placement.node, placement.choice.refused) == (None, {"compute": 1})

    def test_expects_a_busy_node_to_be_slower_and_its_energy_to_be_shared(self) -> None:
        placer = make_setting(make_node("a"), make_node("b")).placer
        for number in range(3):
            before = placer.choose(make_request(f"t{number}"))
            placer.reserve(before, "a")
        arms = placer.choose(make_request()).arms
        assert arms.latency_s[0] > arms.latency_s[1]
        assert arms.energy_j[0] < arms.energy_j[1]
        assert arms.in_flight.tolist() == [3, 0]

    def test_uses_the_learned_length_of_answers_where_none_is_given(self) -> None:
        placer = make_setting(make_node("a")).placer
        assert placer.choose(make_request(output_tokens=None)).output_tokens == 200
        assert placer.choose(make_request(output_tokens=7)).output_tokens == 7


class TestTransfer:
    def test_takes_time_and_energy(self) -> None:
        placer = make_setting(make_node("e", EDGE), make_node("c", CLOUD), bandwidth_bps=100e6).placer
        without, with_input = placer.choose(make_request()), placer.choose(make_request(input_bytes=25_000_000))
        assert with_input.arms.latency_s - without.arms.latency_s == pytest.approx([2.0, 2.0])
        assert with_input.arms.energy_j - without.arms.energy_j == pytest.approx([200.0, 400.0])

    def test_gets_what_a_used_link_has_left_or_else_its_fair_share(self) -> None:
        placer = make_setting(make_node("a"), make_node("b"), bandwidth_bps=100e6).placer
        for number in range(3):
            for name in ("a", "b"):
                placer.reserve(placer.choose(make_request(f"{name}{number}")), name)
        placer.fleet.put_bandwidth("a", Bandwidth(100e6, 50e6))
        placer.fleet.put_bandwidth("b", Bandwidth(100e6, 95e6))
        without, with_input = (placer.choose(make_request(input_bytes=size)).arms for size in (0, 25_000_000))
        assert with_input.latency_s - without.latency_s == pytest.approx([200 / 50, 200 / 20])

    def test_promises_the_link_to_tasks_in_flight_whatever_is_measured_yet(self) -> None:
        placer = make_setting(make_node("a"), bandwidth_bps=100e6).placer
        # 450 MB within 60 s need 60 Mbit/s: one fits, two do not.
        first = placer.choose(make_request("t1", input_bytes=450_000_000))
        placer.reserve(first, "a")
        second = placer.choose(make_request("t2", input_bytes=450_000_000))
        assert first.node == "a"
        assert (second.node, second.choice.refused) == (None, {"bandwidth": 1})

    def test_that_no_link_could_do_in_time_is_late_rather_than_without_room(self) -> None:
        placer = make_setting(make_node("a"), bandwidth_bps=100e6).placer
        placement = placer.choose(make_request(input_bytes=10_000_000_000))
        assert placement.choice.refused == {"deadline": 1}
        assert placement.node == "a"
        placer.reserve(placement, "a")
        assert placer.ledger.demand_bps(np.array([0])).tolist() == [0.0]

    def test_after_the_deadline_has_passed_demands_nothing(self) -> None:
        placement = make_setting(make_node("a")).placer.choose(make_request(input_bytes=1, due_s=999.0))
        assert placement.demand_bps.tolist() == [0.0]
        assert placement.choice.refused == {"deadline": 1}


class TestExplanation:
    @pytest.fixture
    def setting(self) -> Setting:
        return make_setting(make_node("a", EDGE), make_node("b", CLOUD, gpu_type="H100"))

    def test_is_the_chosen_arm_with_all_that_led_to_it(self, setting: Setting) -> None:
        setting.ages_s["b"] = 2.5
        placement = setting.placer.choose(make_request(input_bytes=1_000_000, tiers=frozenset({CLOUD})))
        decision = setting.placer.explain(placement, "b")
        assert (decision.task_id, decision.policy, decision.model) == ("uid-t", "cs-ucb", "m")
        assert (decision.node, decision.tier, decision.gpu_type) == ("b", CLOUD, "H100")
        assert (decision.decided_s, decision.time_left_s, decision.metrics_age_s) == (1000.0, 60.0, 2.5)
        assert decision.latency_s == placement.arms.latency_s[arm(placement, "b")] < decision.latency_bound_s
        assert decision.energy_j == placement.arms.energy_j[arm(placement, "b")]
        assert decision.transmission_energy_j == pytest.approx(16.0)
        assert decision.demand_bps == pytest.approx(8e6 / 60)
        assert (decision.candidates, decision.rejected, decision.meets_deadline) == (1, {"tier": 1}, True)
        assert (decision.occupancy, decision.score, decision.explored) == (1.0, None, True)

    def test_says_when_kube_scheduler_took_another_node(self, setting: Setting) -> None:
        placement = setting.placer.choose(make_request())
        other = next(name for name in placement.names if name != placement.node)
        decision = setting.placer.explain(placement, other)
        assert (decision.node, decision.explored) == (other, False)
        assert "kube-scheduler preferred" in decision.reason

    def test_of_a_node_without_metrics_has_no_age(self, setting: Setting) -> None:
        assert setting.placer.explain(setting.placer.choose(make_request()), "a").metrics_age_s is None


class TestFlights:
    def test_last_from_the_reservation_to_the_release(self) -> None:
        setting = make_setting(make_node("a"))
        placer = setting.placer
        placement = placer.choose(make_request())
        placer.reserve(placement, "a")
        placer.confirm(placer.explain(placement, "a"))
        placer.release_reservation("uid-t")
        setting.now_s += 100
        assert placer.expire() == []
        assert placer.release("uid-t") == 1.0
        assert placer.release("uid-t") is None

    def test_end_when_the_decision_is_not_carried_out(self) -> None:
        setting = make_setting(make_node("a"))
        setting.placer.reserve(setting.placer.choose(make_request()), "a")
        setting.now_s += 100
        assert setting.placer.expire() == ["uid-t"]
