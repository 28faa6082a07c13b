import dataclasses
from typing import Any

import numpy as np
import pytest

from perllm.api.base import MAX_TOKENS
from perllm.placement.decision import read_record
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.flight import Residence
from perllm.placement.ledger import RESERVATION_S
from perllm.placement.placer import REFRESH_S, Placement
from perllm.policy.table import CsUcbTable
from unit.placement.cluster_of import CLOUD, EDGE, Setting, make_node, make_request, make_setting


def arm(placement: Placement, node: str) -> int:
    return placement.names.index(node)


def figures(part: Any) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(part).items() if isinstance(value, int | float)}


def vars_of(placement: Placement) -> list[Any]:
    """Return all that is known of the arms, by arm."""
    arms = {field.name: getattr(placement.arms, field.name) for field in dataclasses.fields(placement.arms)}
    return [placement.choice.scores, *(values for name, values in arms.items() if name != "rows")]


class TestFleet:
    def test_knows_its_nodes_only_in_the_order_asked(self) -> None:
        fleet = make_setting(make_node("a"), make_node("b"), make_node("c")).fleet
        assert fleet.known(["c", "x", "a"]) == ["c", "a"]
        assert fleet.rows(["c", "a"]).tolist() == [2, 0]

    def test_finds_its_nodes_in_the_order_asked_unless_these_are_all(self) -> None:
        fleet = make_setting(make_node("a"), make_node("b"), make_node("c")).fleet
        fleet.remove("a")
        for asked, names, rows in (
            (["c", "x"], ["c"], [2]),
            (["c"], ["c"], [2]),
            (["c", "b"], ["b", "c"], [1, 2]),
            (["c", "b", "a"], ["b", "c"], [1, 2]),
            (["b", "x"], ["b"], [1]),
            (["c", "c"], ["c", "c"], [2, 2]),
            ([], [], []),
        ):
            found, found_rows = fleet.find(asked)
            assert (list(found), found_rows.tolist()) == (names, rows)

    def test_forgets_a_node_that_left_but_keeps_its_row(self) -> None:
        fleet = make_setting(make_node("a"), make_node("b")).fleet
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

    def test_counts_what_decisions_depend_on_as_a_new_version_and_readings_of_bandwidth_not(self) -> None:
        fleet = Fleet()
        versions = [fleet.version]
        for node in (make_node("a", slots=1), make_node("a", slots=1), make_node("a", slots=2), make_node("b")):
            fleet.put(node, int(node.name == "b"), Bandwidth(100e6, 0.0))
            versions.append(fleet.version)
        fleet.put_bandwidth("a", Bandwidth(50e6, 5e6))
        for name in ("a", "a"):
            fleet.remove(name)
            versions.append(fleet.version)
        assert versions == [0, 1, 1, 2, 3, 4, 4]


class TestHarm:
    def test_is_recomputed_in_turns_often_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("perllm.placement.flight_table.GROUP", 1)
        setting = make_setting(*(make_node(name) for name in "abcd"))
        for name in "abcd":
            placement = setting.placer.choose(make_request(f"uid-{name}"))
            setting.placer.reserve(placement, name)
        turns: list[int] = []
        monkeypatch.setattr(setting.ledger, "refresh", lambda _now_s, _shapes, count: turns.append(count))
        for passed_s in (REFRESH_S, 0.2 * REFRESH_S, 0.1 * REFRESH_S, 0.5 * REFRESH_S, 10.0 * REFRESH_S):
            setting.now_s += passed_s
            setting.placer.choose(make_request())
        assert turns == [4, 1, 2, 4]


class TestChoice:
    def test_is_the_same_of_nodes_in_any_order(self) -> None:
        setting = make_setting(make_node("a"), make_node("b", CLOUD, gpu_type="A100"), make_node("c", slots=8))
        for number in range(9):
            setting.placer.reserve(setting.placer.choose(make_request(f"uid-{number}")), "abc"[number % 3])
        setting.now_s += 1.0
        inner = [setting.placer.choose(make_request(), names) for names in (["a", "b"], ["b", "a"])]
        for ordered, other in zip(*(vars_of(one) for one in inner), strict=True):
            assert ordered.tolist() == other[::-1].tolist()
        assert inner[0].node == inner[1].node

    def test_names_the_chosen_node_and_the_next_best_with_room(self) -> None:
        setting = make_setting(make_node("a"), make_node("b", slots=1), make_node("c"), make_node("d"))
        setting.placer.reserve(setting.placer.choose(make_request("first"), ["b"]), "b")
        placement = setting.placer.choose(make_request("second"))
        named = placement.name_best(4)
        assert (named[0], set(named)) == (placement.node, {"a", "c", "d"})
        assert placement.name_best(2) == named[:2]
        assert placement.name_best(0) == ()

    def test_is_among_the_candidates_only(self) -> None:
        placer = make_setting(make_node("a"), make_node("b"), make_node("c")).placer
        placement = placer.choose(make_request(), ["b", "unknown"])
        assert (placement.node, list(placement.names)) == ("b", ["b"])

    @pytest.mark.parametrize("candidates", [[], ["unknown"]])
    def test_among_no_known_node_is_none(self, candidates: list[str]) -> None:
        placement = make_setting(make_node("a")).placer.choose(make_request(), candidates)
        assert (placement.node, placement.choice.excluded) == (None, {})

    def test_keeps_to_the_tiers_of_the_task(self) -> None:
        placer = make_setting(make_node("e", EDGE), make_node("c", CLOUD)).placer
        placement = placer.choose(make_request(tiers=frozenset({CLOUD})))
        assert (placement.node, placement.choice.excluded) == ("c", {"tier": 1})

    def test_takes_a_node_for_as_loaded_for_a_small_model_as_for_a_large_one(self) -> None:
        setting = make_setting(make_node("a", slots=100))
        large, small = (
            dataclasses.replace(make_request(output_tokens=tokens), model=f"of-{tokens}") for tokens in (3000, 10)
        )
        for number in range(20):
            for request in (large, small):
                setting.placer.note_arrival(request)
                one = dataclasses.replace(request, task_id=f"{request.model}-{number}")
                setting.placer.reserve(setting.placer.choose(one), "a")
        arms = [setting.placer.choose(request).arms for request in (large, small)]
        assert arms[0].load[0] == pytest.approx(arms[1].load[0])
        assert arms[0].work[0] > 5 * arms[1].work[0]

    def test_does_not_take_all_others_for_small_after_one_task_that_is_said_to_be_endless(self) -> None:
        setting = make_setting(make_node("a", gpu_type="H100"))
        usual, endless = make_request("usual"), make_request("endless", output_tokens=MAX_TOKENS, due_s=1e5)
        before = setting.placer.choose(usual).arms.work[0]
        setting.placer.reserve(setting.placer.choose(endless), "a")
        setting.placer.release("endless")
        assert setting.placer.choose(usual).arms.work[0] > 0.9 * before

    def test_reserves_nothing(self) -> None:
        setting = make_setting(make_node("a"))
        placer = setting.placer
        placer.choose(make_request())
        assert len(setting.ledger) == 0

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
        assert (placement.node, placement.choice.excluded) == (None, {"compute": 1})

    def test_expects_a_busy_node_to_be_slower_and_its_energy_to_be_shared(self) -> None:
        setting = make_setting(make_node("a"), make_node("b"))
        placer = setting.placer
        for name in ("a", "b"):
            setting.learner.warm(name, "m")
        for number in range(3):
            before = placer.choose(make_request(f"t{number}"))
            placer.reserve(before, "a")
        setting.now_s += 20.0
        arms = placer.choose(make_request(due_s=1080.0)).arms
        assert arms.latency_s[0] > arms.latency_s[1]
        assert arms.energy_j[0] < arms.energy_j[1]
        assert arms.in_flight.tolist() == [3, 0]

    def test_uses_the_learned_length_of_answers_where_none_is_given(self) -> None:
        setting = make_setting(make_node("a"))
        placer = setting.placer
        unknown, hinted = (placer.choose(make_request(output_tokens=tokens)) for tokens in (None, 7))
        assert unknown.inference.output_tokens == setting.learner.expect_length("m", 1000, None).mean
        assert hinted.inference.output_tokens < unknown.inference.output_tokens / 2

    def test_expects_several_prompts_to_have_as_many_answers(self) -> None:
        placer = make_setting(make_node("a")).placer
        request = make_request(output_tokens=None)
        one, several = (placer.choose(dataclasses.replace(request, prompts=count)).inference for count in (1, 4))
        assert several.output_tokens == pytest.approx(4 * one.output_tokens)
        assert several.length_spread == pytest.approx(one.length_spread / 2)
        assert several.prompts == 4

    def test_does_not_see_the_task_itself_as_one_that_waits(self) -> None:
        setting = make_setting(make_node("a", slots=1))
        placer = setting.placer
        placer.reserve(placer.choose(make_request("busy")), "a")
        before = placer.choose(make_request()).arms
        setting.ledger.wait("another", 0, 1.0)
        after = placer.choose(make_request()).arms
        assert after.latency_s[0] > before.latency_s[0]
        assert after.load[0] > before.load[0]


class TestOtherModels:
    """Tasks of several models on one node, of which each has a batch of its own."""

    @staticmethod
    def settle(*models: str, due_s: float = 3000.0) -> Setting:
        """Return a node for each model, on which three of its tasks write for long, and one without tasks."""
        names = [f"node-{model}" for model in models]
        setting = make_setting(*(make_node(name) for name in ("empty", *names)))
        for name, model in zip(names, models, strict=True):
            for number in range(3):
                request = make_request(f"{model}-{number}", model=model, due_s=due_s)
                setting.placer.reserve(setting.placer.choose(request), name)
        for name in ("empty", *names):
            setting.learner.warm(name, "m")
        return setting

    def test_take_half_of_the_time_of_a_gpu_and_none_of_the_energy_of_a_task(self) -> None:
        setting = self.settle("other")
        setting.now_s += 200.0
        alone, shared = map(setting.placer.choose(make_request(due_s=3000.0)).outlook.at, range(2))
        assert (alone.pace, shared.pace) == (1.0, pytest.approx(1 / 2))
        for name in ("reading_s", "token_s"):
            assert getattr(shared.times, name) == pytest.approx(2 * getattr(alone.times, name))
        assert shared.times.work_s == alone.times.work_s
        assert shared.energy == alone.energy
        assert shared.occupancy == pytest.approx(1.0)

    def test_change_nothing_for_nodes_on_which_they_are_not(self) -> None:
        alone, together = (
            setting.placer.choose(make_request(), ["empty", "node-m"]).arms
            for setting in (self.settle("m"), self.settle("m", "other"))
        )
        for name in ("latency_s", "energy_j", "marginal_energy_j", "hit_chance", "harm"):
            assert getattr(alone, name).tolist() == getattr(together, name).tolist()

    def test_lose_time_to_the_first_task_of_a_model_but_not_to_its_further_ones(self) -> None:
        setting = self.settle("other", due_s=1016.0)
        setting.now_s += 9.0
        first = setting.placer.choose(make_request("first", due_s=2000.0))
        setting.placer.reserve(first, "node-other")
        setting.now_s += 1.0
        further = setting.placer.choose(make_request("second", due_s=2000.0))
        assert first.arms.harm[1] > 0.1
        assert further.arms.harm[1] < first.arms.harm[1] / 2


class TestTransfer:
    def test_takes_time_and_energy(self) -> None:
        placer = make_setting(make_node("e", EDGE), make_node("c", CLOUD), bandwidth_bps=100e6).placer
        without, with_input = placer.choose(make_request()), placer.choose(make_request(input_bytes=25_000_000))
        assert with_input.arms.latency_s - without.arms.latency_s == pytest.approx([2.0, 2.0])
        assert with_input.arms.energy_j - without.arms.energy_j == pytest.approx([200.0, 400.0])

    def test_waits_for_the_inputs_before_it(self) -> None:
        placer = make_setting(make_node("a"), make_node("b"), bandwidth_bps=100e6).placer
        for number in range(3):
            placer.reserve(placer.choose(make_request(f"t{number}", input_bytes=25_000_000)), "a")
        transfer_s = placer.choose(make_request(input_bytes=25_000_000)).outlook.times.transfer_s
        assert transfer_s == pytest.approx([4 * 2.0, 2.0])

    def test_promises_the_link_to_tasks_in_flight_whatever_is_measured_yet(self) -> None:
        placer = make_setting(make_node("a"), bandwidth_bps=100e6, policy=CsUcbTable()).placer
        # 450 MB within 60 s need 60 Mbit/s: one fits, two do not.
        first = placer.choose(make_request("t1", input_bytes=450_000_000))
        placer.reserve(first, "a")
        second = placer.choose(make_request("t2", input_bytes=450_000_000))
        assert first.node == "a"
        assert (second.node, second.choice.excluded) == (None, {"bandwidth": 1})

    def test_that_no_link_could_do_in_time_is_late_rather_than_without_room(self) -> None:
        setting = make_setting(make_node("a"), bandwidth_bps=100e6)
        placer = setting.placer
        placement = placer.choose(make_request(input_bytes=10_000_000_000))
        assert placement.choice.excluded == {"late": 1}
        assert placement.node == "a"
        placer.reserve(placement, "a")
        assert setting.ledger.loads(np.array([0]), 0.0).demand_bps.tolist() == [0.0]

    def test_after_the_deadline_has_passed_demands_nothing(self) -> None:
        placement = make_setting(make_node("a")).placer.choose(make_request(input_bytes=1, due_s=999.0))
        assert placement.outlook.demand_bps.tolist() == [0.0]
        assert placement.choice.excluded == {"late": 1}


class TestConfidence:
    def test_counts_tasks_in_flight_as_plays_of_all_nodes_whose_law_learns_from_them(self) -> None:
        nodes = make_node("a", gpu_type="T4"), make_node("b", gpu_type="T4"), make_node("c", gpu_type="H100")
        placer = make_setting(*nodes).placer
        first = placer.choose(make_request("t-1"))
        placer.reserve(first, "a")
        second = placer.choose(make_request("t-2"))
        assert (second.arms.plays - first.arms.plays).tolist() == pytest.approx([1.0, 1.0, 0.0], abs=0.1)

    def test_doubts_a_type_without_figures_more(self) -> None:
        placement = make_setting(make_node("a", gpu_type="T4"), make_node("b", gpu_type="new")).placer.choose(
            make_request()
        )
        assert placement.arms.doubt[0] == 0.3
        assert placement.arms.doubt[1] > 0.5


class TestExplanation:
    @pytest.fixture
    def setting(self) -> Setting:
        return make_setting(make_node("a", EDGE), make_node("b", CLOUD, gpu_type="H100"))

    def test_is_the_chosen_arm_with_all_that_led_to_it(self, setting: Setting) -> None:
        setting.ages_s["b"] = 2.5
        placement = setting.placer.choose(make_request(input_bytes=1_000_000, tiers=frozenset({CLOUD})))
        decision = setting.placer.explain(placement, "b")
        assert (decision.task_id, decision.policy, decision.inference.model) == ("uid-t", "cs-ucb", "m")
        assert (decision.node, decision.tier, decision.gpu_type) == ("b", CLOUD, "H100")
        assert (decision.decided_s, decision.inference.time_left_s, decision.metrics_age_s) == (1000.0, 60.0, 2.5)
        assert decision.forecast.times.latency_s == placement.arms.latency_s[arm(placement, "b")]
        assert decision.forecast.latency_low_s < decision.forecast.times.latency_s < decision.forecast.latency_high_s
        assert decision.forecast.hit_chance == placement.arms.hit_chance[arm(placement, "b")]
        assert decision.forecast.energy.energy_j == placement.arms.energy_j[arm(placement, "b")]
        assert decision.forecast.energy.transmission_energy_j == pytest.approx(16.0)
        assert decision.forecast.demand_bps == pytest.approx(8e6 / 60)
        assert (decision.assessment.candidates, decision.assessment.excluded, decision.assessment.meets_deadline) == (
            1,
            {"tier": 1},
            True,
        )
        assert (decision.forecast.occupancy, decision.assessment.score, decision.assessment.explored) == (
            1.0,
            placement.choice.scores[arm(placement, "b")],
            False,
        )

    def test_names_the_other_nodes_that_may_take_the_task(self, setting: Setting) -> None:
        placement = setting.placer.choose(make_request())
        for chosen, other in (("a", "b"), ("b", "a")):
            (alternative,) = setting.placer.explain(placement, chosen).alternatives
            assert alternative.node == other
        placement = setting.placer.choose(make_request(tiers=frozenset({CLOUD})))
        assert setting.placer.explain(placement, "b").alternatives == ()

    def test_says_when_kube_scheduler_took_another_node(self, setting: Setting) -> None:
        placement = setting.placer.choose(make_request())
        other = next(name for name in placement.names if name != placement.node)
        decision = setting.placer.explain(placement, other)
        assert (decision.node, decision.assessment.explored) == (other, False)
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
        assert placer.find_expired() == []
        assert placer.release("uid-t") == Residence(1.0, 0.0)
        assert placer.release("uid-t") is None

    def test_end_when_the_decision_is_not_carried_out(self) -> None:
        setting = make_setting(make_node("a"))
        setting.placer.reserve(setting.placer.choose(make_request()), "a")
        setting.now_s += 100
        assert setting.placer.find_expired() == ["uid-t"]

    def test_that_are_never_sent_load_no_model(self) -> None:
        setting = make_setting(make_node("a"))
        for task_id in ("first", "second"):
            setting.placer.reserve(setting.placer.choose(make_request(task_id)), "a")
            setting.now_s += 3.0
        left = []
        for task_id in ("second", "first"):
            setting.placer.release_reservation(task_id)
            left.append(setting.placer.choose(make_request("next")).outlook.times.cold[0])
        assert left[0] < left[1] == 1.0

    def test_last_longer_when_the_same_decision_is_reserved_again(self) -> None:
        setting = make_setting(make_node("a"))
        placement = setting.placer.choose(make_request())
        setting.placer.reserve(placement, "a")
        setting.now_s += RESERVATION_S - 1
        setting.placer.reserve(placement, "a")
        setting.now_s += RESERVATION_S - 1
        assert setting.placer.find_expired() == []
        assert setting.ledger.placed == 1
        setting.now_s += 1
        assert setting.placer.find_expired() == ["uid-t"]

    def test_are_the_same_when_they_are_read_from_a_record(self) -> None:
        setting = make_setting(make_node("a"))
        placer = setting.placer
        placement = placer.choose(make_request(input_bytes=1_000_000, output_tokens=None))
        placer.reserve(placement, "a")
        reserved = setting.ledger.flight("uid-t")
        placer.release_reservation("uid-t")
        placer.confirm(read_record(placer.explain(placement, "a").to_record()))
        confirmed = setting.ledger.flight("uid-t")
        assert reserved is not None
        assert confirmed is not None
        assert confirmed.placed_s == reserved.placed_s
        assert (confirmed.row, confirmed.length_kind, confirmed.slots) == (reserved.row, reserved.length_kind, 1.0)
        for ours, theirs in (
            (confirmed.inference, reserved.inference),
            (confirmed.forecast.times, reserved.forecast.times),
            (confirmed.forecast.energy, reserved.forecast.energy),
        ):
            assert figures(ours) == pytest.approx(figures(theirs), rel=1e-5)


class TestOutlook:
    @staticmethod
    def chance(placement: Placement, node: str) -> float:
        return float(placement.arms.hit_chance[arm(placement, node)])

    def test_promises_less_the_less_time_is_left(self) -> None:
        placer = make_setting(make_node("a")).placer
        chances = [self.chance(placer.choose(make_request(due_s=1000.0 + left_s)), "a") for left_s in (-1, 3, 15, 300)]
        assert chances == sorted(chances)
        assert (chances[0], chances[-1]) == (0.0, pytest.approx(1.0, abs=0.01))

    def test_names_a_range_that_the_expected_time_is_in(self) -> None:
        placement = make_setting(make_node("a")).placer.choose(make_request(output_tokens=None))
        forecast = placement.outlook.at(0)
        assert forecast.latency_low_s < forecast.times.latency_s < forecast.latency_high_s
        assert forecast.latency_high_s > 2 * forecast.latency_low_s

    def test_counts_the_energy_that_a_busy_node_spends_anyway_as_no_cost_of_the_task(self) -> None:
        setting = make_setting(make_node("a"), make_node("b"))
        for number in range(3):
            setting.placer.reserve(setting.placer.choose(make_request(f"t{number}")), "a")
        setting.now_s += 20.0
        arms = setting.placer.choose(make_request(due_s=1100.0)).arms
        assert arms.marginal_energy_j[0] < arms.energy_j[0]
        assert arms.marginal_energy_j[1] == pytest.approx(arms.energy_j[1])

    def test_sees_harm_only_where_others_run_into_their_deadline(self) -> None:
        setting = make_setting(make_node("tight"), make_node("idle"))
        placer = setting.placer
        placer.reserve(placer.choose(make_request("t", due_s=1016.0)), "tight")
        setting.now_s += 9.0
        arms = placer.choose(make_request(due_s=1100.0)).arms
        assert arms.harm[0] > 0.001
        assert arms.harm[1] == 0.0

    def test_sees_no_harm_in_what_a_task_waits_for_before_it_runs(self) -> None:
        setting = make_setting(make_node("a"))
        placer = setting.placer
        placer.reserve(placer.choose(make_request("t", due_s=1060.0)), "a")
        setting.now_s += 9.0
        at_once, fetched = (
            placer.choose(make_request(due_s=1100.0, input_bytes=size)).arms for size in (0, 100_000_000)
        )
        assert fetched.latency_s[0] > at_once.latency_s[0] + 5.0
        assert fetched.harm[0] == pytest.approx(at_once.harm[0]) != 0.0

    def test_is_the_same_in_whatever_order_nodes_are_listed(self) -> None:
        placer = make_setting(make_node("a"), make_node("b", CLOUD, gpu_type="H100"), make_node("c")).placer
        placer.reserve(placer.choose(make_request("t")), "a")
        one, other = (placer.choose(make_request(), order) for order in (["a", "b", "c"], ["c", "a", "b"]))
        for name in one.names:
            assert self.chance(one, name) == self.chance(other, name)
            assert one.arms.latency_s[arm(one, name)] == other.arms.latency_s[arm(other, name)]
