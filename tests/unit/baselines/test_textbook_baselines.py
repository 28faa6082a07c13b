"""The baselines that learn nothing, against steps computed by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.random import default_rng

from perllm.policy.problem import Arms, Policy
from perllm_lab.baselines.registry import build_policy, policy_names
from unit.baselines.samples import fleets, make_arms, make_feedback, make_task, row_of

ORDER_MATTERS = {"random", "agod", "least-allocated"}
QUEUE_AT_NODES = {"random", "round-robin", "least-loaded", "cloud-only", "edge-only", "agod"}


def choose(name: str, arms: Arms, *, time_left_s: float = 10.0) -> int | None:
    return build_policy(name, default_rng(0)).choose(make_task(time_left_s=time_left_s), arms).arm


def choose_often(policy: Policy, arms: Arms, times: int) -> Counter[int | None]:
    return Counter(policy.choose(make_task(), arms).arm for _ in range(times))


@pytest.mark.parametrize("name", policy_names())
class TestEveryBaseline:
    @settings(max_examples=30)
    @given(arms=fleets())
    def test_keeps_to_allowed_open_nodes_and_to_room_unless_tasks_may_queue(
        self, name: str, arms: tuple[Arms, Arms]
    ) -> None:
        policy, fleet = build_policy(name, default_rng(0)), arms[0]
        arm = policy.choose(make_task(), fleet).arm
        if arm is not None:
            assert fleet.allowed[arm]
            assert fleet.compute_capacity[arm] > 0
            assert name in QUEUE_AT_NODES or fleet.compute_used[arm] <= fleet.compute_capacity[arm]

    @settings(max_examples=30)
    @given(arms=fleets())
    def test_does_not_depend_on_the_order_of_the_nodes(self, name: str, arms: tuple[Arms, Arms]) -> None:
        if name in ORDER_MATTERS:
            return
        rows = [row_of(build_policy(name, default_rng(0)).choose(make_task(), each), each) for each in arms]
        assert rows[0] == rows[1]

    def test_waits_when_there_is_no_node_at_all(self, name: str) -> None:
        assert choose(name, make_arms(used=[])) is None

    def test_tells_slacks_of_the_node_it_chose(self, name: str) -> None:
        arms = make_arms(used=[1], slots=[4], latency_s=[8], cloud=[name != "edge-only"])
        choice = build_policy(name, default_rng(0)).choose(make_task(time_left_s=10), arms)
        assert (choice.slack, choice.resource_slack, choice.meets_deadline) == (pytest.approx(0.2), 0.75, True)


class TestRandom:
    def test_draws_every_open_node_alike_also_full_ones(self) -> None:
        drawn = choose_often(build_policy("random", default_rng(1)), make_arms(used=[1, 9, 1], slots=[4, 4, 0]), 400)
        assert set(drawn) == {0, 1}
        assert drawn[0] == pytest.approx(200, abs=40)


class TestRoundRobin:
    def test_takes_open_nodes_in_turn_by_row(self) -> None:
        policy = build_policy("round-robin", default_rng(0))
        arms = make_arms(used=[9, 1, 1, 1], slots=[4, 4, 0, 4], rows=[5, 2, 3, 7])
        assert [row_of(policy.choose(make_task(), arms), arms) for _ in range(4)] == [2, 5, 7, 2]


class TestLeastLoaded:
    def test_prefers_the_fewest_tasks_per_slot(self) -> None:
        assert choose("least-loaded", make_arms(used=[2, 3, 9], slots=[4, 8, 8])) == 1

    def test_breaks_ties_by_latency(self) -> None:
        assert choose("least-loaded", make_arms(used=[1, 1, 1], latency_s=[3, 2, 4])) == 1

    def test_queues_at_the_least_loaded_node_when_all_are_full(self) -> None:
        assert choose("least-loaded", make_arms(used=[9, 6], slots=[4, 4])) == 1


class TestOneTier:
    @pytest.mark.parametrize(("name", "arm"), [("cloud-only", 1), ("edge-only", 0)])
    def test_stays_on_its_tier(self, name: str, arm: int) -> None:
        assert choose(name, make_arms(used=[4, 4, 5], cloud=[False, True, True])) == arm

    def test_waits_where_there_is_no_such_node(self) -> None:
        assert choose("cloud-only", make_arms(used=[1, 1])) is None


class TestLeastAllocated:
    def test_scores_free_share_in_whole_percents(self) -> None:
        policy = build_policy("least-allocated", default_rng(0))
        scores = policy.choose(make_task(), make_arms(used=[1, 2, 5], slots=[3, 8, 4])).scores
        assert scores.tolist() == [66.0, 75.0, -np.inf]

    def test_draws_among_nodes_of_the_same_whole_score(self) -> None:
        # 1 - 1/200 and 1 - 1/201 are both 99 in whole percents.
        policy = build_policy("least-allocated", default_rng(2))
        assert set(choose_often(policy, make_arms(used=[1, 1], slots=[200, 201]), 50)) == {0, 1}

    def test_waits_when_no_node_has_room(self) -> None:
        assert choose("least-allocated", make_arms(used=[5, 5])) is None


class TestFastestFirst:
    def test_takes_the_least_latency_with_room(self) -> None:
        assert choose("fastest-first", make_arms(used=[5, 1, 1], latency_s=[1, 3, 2])) == 2


class TestGreedyEnergy:
    def test_takes_the_least_energy_in_time(self) -> None:
        arms = make_arms(used=[1, 1, 1], latency_s=[20, 9, 1], energy_j=[1, 5, 7])
        assert choose("greedy-energy", arms, time_left_s=10) == 1

    def test_takes_the_fastest_when_none_is_in_time(self) -> None:
        arms = make_arms(used=[1, 1], latency_s=[20, 15], energy_j=[1, 5])
        assert choose("greedy-energy", arms, time_left_s=10) == 1


class TestState:
    def test_is_refused(self) -> None:
        with pytest.raises(ValueError, match="keeps no state"):
            build_policy("random", default_rng(0)).import_state("m", 0, {"plays": 1.0})

    def test_reward_of_a_textbook_rule_is_being_in_time(self) -> None:
        policy = build_policy("random", default_rng(0))
        assert [policy.learn(make_feedback(0, latency_s)) for latency_s in (10.0, 10.1)] == [1.0, 0.0]


class TestRegistry:
    def test_names_policies_as_they_name_themselves(self) -> None:
        assert [build_policy(name, default_rng(0)).name for name in policy_names()] == policy_names()

    @pytest.mark.parametrize(("name", "parameters"), [("fineinfr", {}), ("random", {"x": 1}), ("agod", {"x": 1})])
    def test_refuses_what_there_is_not(self, name: str, parameters: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=name):
            build_policy(name, default_rng(0), parameters)
