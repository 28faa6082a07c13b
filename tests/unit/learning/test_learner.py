import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from perllm.api.base import MAX_TOKENS
from perllm.learning.decision_errors import PRIOR_SCALE
from perllm.learning.features import energy_features, latency_features
from perllm.learning.learner import Learner
from perllm.learning.loading import MAX_GROWTH
from perllm.learning.outcome import MAX_ENERGY_J
from perllm.learning.priors import LOAD_S, find_prior
from perllm.learning.recent import CAPACITY, RecentOutcomes
from perllm.learning.type_law import TypeLaw
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Feedback
from perllm.policy.table import CsUcbTable
from unit.learning.outcomes import make_ended, make_outcome

ROW = np.array([0])


def latency_s(learner: Learner, rows: np.ndarray) -> float:
    """Return the seconds of the usual outcome's task."""
    [coefficients] = learner.laws("m", rows).latency.coefficients[rows]
    return float(coefficients @ latency_features(1000, 0, 100, 2.0))


def energy_j(learner: Learner, rows: np.ndarray) -> float:
    """Return its joules."""
    [coefficients] = learner.laws("m", rows).energy.coefficients[rows]
    return float(coefficients @ energy_features(1000, 100, 2.0))


@pytest.fixture
def learner() -> Learner:
    learner = Learner(CsUcbTable())
    learner.register("a", "type-y")
    return learner


class TestRows:
    def test_stay_for_the_life_of_the_process(self, learner: Learner) -> None:
        assert [learner.register(name, "type-y") for name in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]

    def test_follow_a_node_to_another_type(self, learner: Learner) -> None:
        learner.register("b", "type-x")
        for number in range(50):
            learner.learn(make_outcome(number, run_s=1.0))
        before_s = latency_s(learner, np.array([1]))
        learner.register("b", "type-y")
        assert latency_s(learner, np.array([1])) < before_s / 2

    @pytest.mark.parametrize(("gpu_type", "load_s"), [("type-x", 20.0), ("type-z", LOAD_S)])
    def test_of_a_node_that_changes_its_type_forget_how_long_that_loads(
        self, learner: Learner, gpu_type: str, load_s: float
    ) -> None:
        learner.register("b", "type-x")
        for number in range(10):
            learner.learn(make_outcome(2 * number, run_s=50.0, load_s=45.0))
            learner.learn(make_outcome(2 * number + 1, node="b", run_s=25.0, load_s=20.0))
        learner.register("a", gpu_type)
        assert learner.laws("m", ROW).load_s[0] == pytest.approx(load_s, rel=0.01)

    def test_are_looked_up_once_for_each_model_also_when_a_node_has_left(
        self, learner: Learner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        learner.register("left", "type-y")
        learner.laws("m", ROW)
        monkeypatch.setattr(learner._rows, "groups", None)
        assert learner.laws("m", ROW).latency.coefficients.shape[0] == 2


class TestLearning:
    def test_requests_teach_nothing_about_the_start_of_pods(self, learner: Learner) -> None:
        before = learner.laws("m", ROW).latency.coefficients[0].copy()
        for number in range(50):
            learner.learn(make_outcome(number, run_s=0.5, is_served=True))
        after = learner.laws("m", ROW).latency.coefficients[0]
        ratio = float(np.exp(np.log(after[1:] / before[1:]).mean()))
        assert ratio < 0.7
        assert after[0] == pytest.approx(before[0], rel=0.5)

    def test_requests_teach_how_long_a_round_trip_takes(self, learner: Learner) -> None:
        for number in range(200):
            tokens = 50.0 + 10.0 * (number % 20)
            run_s = 0.2 + 0.02 * tokens
            learner.learn(make_outcome(number, run_s=run_s, output_tokens=tokens, prompt_tokens=10, is_served=True))
        assert learner.laws("m", ROW).latency.coefficients[0, 4] == pytest.approx(0.2, rel=0.25)

    def test_brings_predictions_near_to_what_was_observed(self, learner: Learner) -> None:
        for number in range(100):
            learner.learn(make_outcome(number, run_s=4.0, inference_energy_j=300.0))
        assert latency_s(learner, ROW) == pytest.approx(4.0, rel=0.05)
        assert energy_j(learner, ROW) == pytest.approx(300.0, rel=0.05)

    def test_of_runs_next_to_other_models_is_of_a_model_that_has_its_gpu_to_itself(self, learner: Learner) -> None:
        alone = Learner(CsUcbTable())
        alone.register("a", "type-y")
        for number in range(200):
            tokens, prompt, pace = 50.0 + 10.0 * (number % 20), 100.0 * (1 + number % 7), (1.0, 0.5, 1 / 3)[number % 3]
            for one, met in ((alone, 1.0), (learner, pace)):
                run_s = 2.0 + (0.0005 * prompt + 0.02 * tokens) / met
                one.learn(make_outcome(number, run_s=run_s, output_tokens=tokens, prompt_tokens=prompt, pace=met))
        assert latency_s(learner, ROW) == pytest.approx(latency_s(alone, ROW), rel=0.05)

    def test_returns_the_reward_of_the_whole_energy(self, learner: Learner) -> None:
        # 310 J of 100 x 10 + 1000 x 0.15 J; slack 0.5 of time and of resources, by its weight of 0.5
        assert learner.learn(make_outcome()) == pytest.approx(-310 / 1150 + 0.25)

    def test_rewards_the_own_choice_of_the_policy_where_the_task_ran_by_another(self, learner: Learner) -> None:
        own = Feedback(
            model="m",
            row=0,
            latency_s=5.0,
            deadline_s=10.0,
            energy_j=1150.0,
            prompt_tokens=1000.0,
            output_tokens=100.0,
            resource_slack=0.5,
        )
        assert learner.learn(make_outcome(), own) == pytest.approx(-1.0 + 0.25)

    def test_lets_no_meter_change_what_energy_is_worth_to_all_tasks(self) -> None:
        policy = CsUcb()
        learner = Learner(policy)
        learner.register("a", "type-y")
        for number in range(1000):
            learner.learn(make_outcome(number))
        learner.learn(make_outcome(1000, inference_energy_j=MAX_ENERGY_J))
        assert policy.export_state("m", 0)["meanEnergyJoules"] == pytest.approx(310.0, rel=0.1)

    def test_without_measured_energy_rewards_by_the_prediction_and_leaves_the_energy_law_alone(
        self, learner: Learner
    ) -> None:
        before_j = energy_j(learner, ROW)
        assert learner.learn(make_outcome(inference_energy_j=None)) == pytest.approx(-500 / 1150 + 0.25)
        assert energy_j(learner, ROW) == before_j
        assert learner.summaries("a")["m"].energy_count == 0

    def test_marks_the_node_as_changed(self, learner: Learner) -> None:
        learner.learn(make_outcome())
        assert learner.revisions.take_changed() == {"a"}

    def test_never_counts_an_outcome_twice(self, learner: Learner) -> None:
        assert learner.learn(make_outcome()) is not None
        learner.revisions.take_changed()
        assert learner.learn(make_outcome()) is None
        assert learner.summaries("a")["m"].count == 1
        assert not learner.revisions.take_changed()

    def test_keeps_plain_averages_for_people(self, learner: Learner) -> None:
        learner.learn(make_outcome(1, latency_s=4, inference_energy_j=100))
        learner.learn(make_outcome(2, latency_s=12, inference_energy_j=None))
        summary = learner.summaries("a")["m"]
        assert (summary.count, summary.latency_s, summary.met) == (2, 8.0, 1)
        assert (summary.energy_count, summary.energy_j) == (1, 110.0)
        assert summary.last_outcome_s == 1002.0

    def test_believes_no_node_to_have_read_for_longer_than_the_run(self, learner: Learner) -> None:
        for number in range(50):
            learner.learn(make_outcome(number, others_tokens=1e6))
        laws = learner.laws("m", ROW)
        assert laws.latency.coefficients[0, 1] > 0.09 * find_prior("type-x").latency[1]

    def test_does_not_take_for_scatter_what_the_law_has_learned_since_the_decision(self, learner: Learner) -> None:
        for number in range(60):
            learner.learn(make_outcome(number, run_s=2.0, run_error=math.log(2.0 / 9.0), law_s=8.0))
        assert learner.laws("m", ROW).latency.deviation(0) < 0.15

    def test_of_a_run_that_loaded_its_model_and_took_less_than_expected_learns_that_it_was_not_so_slow(
        self, learner: Learner
    ) -> None:
        before_s = latency_s(learner, ROW)
        learner.learn(make_outcome(1, run_s=0.9 * before_s, cold=1.0))
        assert latency_s(learner, ROW) < 0.8 * before_s

    def test_of_several_answers_at_a_time_learns_neither_time_nor_energy(self, learner: Learner) -> None:
        before = learner.estimate("a", "m")
        learner.learn(make_outcome(run_s=0.1, inference_energy_j=1.0, is_sequential=False, is_length_known=False))
        assert learner.estimate("a", "m") == before
        assert learner.summaries("a")["m"].count == 1

    def test_of_a_length_that_was_not_reported_learns_none(self, learner: Learner) -> None:
        before = learner.expect_length("m", 1000, None).mean
        learner.learn(make_outcome(output_tokens=5000, is_length_known=False))
        assert learner.expect_length("m", 1000, None).mean == before


class TestImpossibleOutcomes:
    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ({"output_tokens": 0}, "tokens"),
            ({"output_tokens": MAX_TOKENS + 1}, "tokens"),
            ({"prompt_tokens": -1}, "tokens"),
            ({"hint_tokens": 0.0}, "tokens"),
            ({"run_s": 0.0}, "time"),
            ({"run_s": math.inf}, "time"),
            ({"run_s": math.nan}, "time"),
            ({"latency_s": -110.0}, "time"),
            ({"finished_s": math.nan}, "time"),
            ({"inference_energy_j": -1.0}, "energy"),
            ({"inference_energy_j": 1e12}, "energy"),
            ({"transmission_energy_j": math.inf}, "energy"),
            ({"run_error": math.nan}, "decision"),
            ({"occupancy": math.inf}, "decision"),
            ({"cold": -1.0}, "decision"),
            ({"pace": 0.0}, "decision"),
            ({"pace": 1.1}, "decision"),
            ({"deadline_s": 0.0}, "decision"),
            ({"load_s": 5.0, "run_s": 4.0}, "decision"),
        ],
        ids=str,
    )
    def test_teach_nothing_and_are_counted(self, wrong: dict[str, float], reason: str) -> None:
        refused: list[str] = []
        learner = Learner(CsUcbTable(), refused.append)
        learner.register("a", "type-y")
        assert learner.learn(make_outcome(**wrong)) is None
        assert refused == [reason]
        assert learner.summaries("a") == {}
        assert not learner.revisions.take_changed()

    @pytest.mark.parametrize("wrong", [{"run_s": math.nan}, {"prompt_tokens": 0}, {"foreseen_token_s": math.inf}])
    def test_of_ended_tasks_teach_nothing_either(self, wrong: dict[str, float]) -> None:
        refused: list[str] = []
        learner = Learner(CsUcbTable(), refused.append)
        learner.register("a", "type-y")
        assert not learner.learn_ended(make_ended(**wrong))
        assert len(refused) == 1
        assert not learner.revisions.take_changed()


class TestEnded:
    def test_at_its_deadline_is_a_miss_once(self, learner: Learner) -> None:
        assert learner.learn_ended(make_ended())
        assert not learner.learn_ended(make_ended())
        policy = learner.export_arm("a", "m")["policy"]
        assert (policy["plays"], policy["meanReward"]) == (1, -1.5)
        assert learner.laws("m", ROW).latency.scale[0] > PRIOR_SCALE
        assert learner.revisions.take_changed() == {"a"}

    def test_makes_answers_look_longer_not_shorter(self, learner: Learner) -> None:
        for number in range(10):
            learner.learn(make_outcome(number))
        before = learner.expect_length("m", 1000, None).mean
        for number in range(30):
            learner.learn_ended(make_ended(task_id=f"task-{number}"))
        assert learner.expect_length("m", 1000, None).mean > before

    def test_while_the_model_was_loaded_says_nothing_of_lengths(self, learner: Learner) -> None:
        before = learner.expect_length("m", 1000, None).mean
        learner.learn_ended(make_ended(cold=0.02))
        assert learner.expect_length("m", 1000, None).mean == before

    def test_with_several_answers_tells_nothing_of_the_length_of_one(self, learner: Learner) -> None:
        for number in range(10):
            learner.learn(make_outcome(number))
        before = learner.expect_length("m", 1000, None).mean
        learner.learn_ended(make_ended(is_one_answer=False))
        assert learner.expect_length("m", 1000, None).mean == before

    def test_before_it_wrote_anything_says_nothing_of_its_length(self, learner: Learner) -> None:
        before = learner.expect_length("m", 1000, None).mean
        learner.learn_ended(make_ended(run_s=0.1))
        assert learner.expect_length("m", 1000, None).mean == pytest.approx(before, rel=0.02)


class TestSelection:
    """Runs are ended after 8 s. Answers have 130 tokens in the middle; what completes on a slow node is short."""

    @staticmethod
    def serve(learner: Learner, node: str, token_s: float, rng: np.random.Generator) -> None:
        tokens = 130.0 * float(np.exp(rng.normal(0.0, 0.8)))
        number, run_s = int(rng.integers(2**31)), (1.3 + tokens * token_s) * float(np.exp(rng.normal(0.0, 0.1)))
        if run_s <= 8.0:
            learner.learn(make_outcome(number, node=node, output_tokens=tokens, run_s=run_s, occupancy=1.0))
        else:
            ended = make_ended(task_id=str(number), node=node, run_s=8.0, occupancy=1.0)
            learner.learn_ended(ended)

    @pytest.mark.parametrize("slow_s", [0.03, 0.12])
    def test_makes_no_slow_node_look_fast_and_no_answer_long(self, learner: Learner, slow_s: float) -> None:
        learner.register("b", "type-x")
        rng = np.random.default_rng(1)
        for _ in range(400):
            self.serve(learner, "a", slow_s, rng)
            self.serve(learner, "b", 0.01, rng)
        [start_s, read_s, hundred_s, *_] = learner.laws("m", np.array([0, 1])).latency.coefficients[0]
        assert start_s + read_s + 1.3 * hundred_s == pytest.approx(1.3 + 130 * slow_s, rel=0.1)
        assert learner.expect_length("m", 1000, None).mean == pytest.approx(130.0 * np.exp(0.32), rel=0.15)


class TestModels:
    def test_are_loaded_where_they_have_served_and_being_loaded_where_they_were_sent(self, learner: Learner) -> None:
        for name in ("served", "loading", "never"):
            learner.register(name, "type-y")
        rows = np.array([0, 1, 2, 3])
        learner.learn(make_outcome())
        learner.warm("served", "m")
        learner.load(2, "m", 100.0)
        laws = learner.laws("m", rows)
        half_s = 100.0 + laws.load_s[2] / 2
        assert laws.cold(rows, half_s) == pytest.approx([0.0, 0.0, 0.5, 1.0])
        learner.cool("served")
        assert laws.cold(rows, half_s)[1] == 1.0

    @pytest.mark.parametrize("lose", [lambda learner: learner.unload("a", "m"), lambda learner: learner.cool("a")])
    def test_that_were_unloaded_since_a_run_are_not_loaded_because_it_is_learned_late(
        self, learner: Learner, lose: Callable[[Learner], None]
    ) -> None:
        learner.load(0, "m", 100.0)
        lose(learner)
        learner.learn(make_outcome(1))
        assert learner.laws("m", ROW).cold(ROW, 1000.0)[0] == 1.0
        learner.load(0, "m", 1000.0)
        learner.learn(make_outcome(2))
        assert learner.laws("m", ROW).cold(ROW, 1000.0)[0] == 0.0

    def test_that_were_timed_while_they_were_loaded_are_learned_apart_from_the_run(self, learner: Learner) -> None:
        warm_s = latency_s(learner, ROW)
        for number in range(10):
            learner.learn(make_outcome(number, run_s=warm_s + 20.0, cold=0.0, load_s=20.0))
        assert learner.laws("m", ROW).load_s[0] == pytest.approx(20.0, rel=0.01)
        assert latency_s(learner, ROW) == pytest.approx(warm_s, rel=0.05)

    def test_are_not_taken_for_loaded_before_a_task_has_completed(self, learner: Learner) -> None:
        learner.load(0, "m", 100.0)
        laws = learner.laws("m", ROW)
        assert 0.0 < laws.cold(ROW, 1000.0)[0] < 0.1
        before = laws.latency.coefficients[0].copy()
        learner.learn(make_outcome(run_s=60.0, cold=float(laws.cold(ROW, 1000.0)[0])))
        assert laws.latency.coefficients[0] == pytest.approx(before)
        assert laws.load_s[0] > 6.0
        assert laws.cold(ROW, 1000.0)[0] == 0.0

    def test_take_as_long_to_load_as_was_seen_on_any_node_of_the_type(self, learner: Learner) -> None:
        learner.register("b", "type-y")
        rows = np.array([0, 1])
        for number in range(60):
            warm, cold = make_outcome(2 * number, run_s=4.0), make_outcome(2 * number + 1, run_s=24.0, cold=1.0)
            learner.learn(warm)
            learner.learn(cold)
        laws = learner.laws("m", rows)
        assert laws.load_s[:2] == pytest.approx([20.0, 20.0], rel=0.15)
        learner.register("c", "type-y")
        assert learner.laws("m", np.array([2])).load_s[2] == laws.load_s[0]

    def test_that_were_all_but_loaded_say_next_to_nothing_of_the_loading(self, learner: Learner) -> None:
        before_s = learner.laws("m", ROW).load_s[0]
        learner.learn(make_outcome(run_s=150.0, cold=0.02))
        assert learner.laws("m", ROW).load_s[0] < 1.2 * before_s

    def test_are_not_taken_to_load_for_a_day_because_one_run_took_so_long(self, learner: Learner) -> None:
        learner.learn(make_outcome(run_s=86400.0, cold=1.0))
        assert learner.laws("m", ROW).load_s[0] <= MAX_GROWTH * LOAD_S

    @pytest.mark.parametrize("cold", [1e-3, 0.5, 1.0])
    def test_never_take_less_than_no_time_to_load(self, learner: Learner, cold: float) -> None:
        for number in range(30):
            learner.learn(make_outcome(number, run_s=0.1, cold=cold))
        assert learner.laws("m", ROW).load_s[0] >= 0.0


class TestAnswerLength:
    def test_moves_from_what_is_published_to_what_was_observed(self, learner: Learner) -> None:
        before = learner.expect_length("m", 1000, None).mean
        for number in range(200):
            learner.learn(make_outcome(number, output_tokens=700))
        assert before < 300
        assert learner.expect_length("m", 1000, None).mean == pytest.approx(700, rel=0.15)

    def test_is_kept_for_each_model_alone(self, learner: Learner) -> None:
        other = learner.expect_length("other", 1000, None).points.tolist()
        for number in range(50):
            learner.learn(make_outcome(number, output_tokens=700))
        assert learner.expect_length("other", 1000, None).points.tolist() == other
        kinds = {learner.length_kind(model, has_hint=hint) for model in ("m", "other") for hint in (False, True)}
        assert kinds == set(range(len(learner.shapes)))


class TestState:
    def test_survives_export_and_import(self, learner: Learner) -> None:
        for number in range(10):
            learner.learn(make_outcome(number))
        new = Learner(CsUcbTable())
        new.register("a", "type-y")
        new.import_node("a", [("m", learner.summaries("a")["m"], learner.export_arm("a", "m"))], learner.recent("a"))
        assert new.export_arm("a", "m") == learner.export_arm("a", "m")
        assert new.learn(make_outcome(3)) is None
        assert new.learn(make_outcome(99)) is not None

    @pytest.mark.parametrize(
        ("part", "rubbish"),
        [
            ("policy", {"plays": -1.0, "meanReward": 0.0}),
            ("latency", {"gram": [-1.0] * 10}),
            ("energy", {"errors": [0.0] * 5}),
            ("lengths", {"scale": [0.0, 0.0]}),
        ],
    )
    def test_that_fits_in_part_only_changes_nothing(self, learner: Learner, part: str, rubbish: Any) -> None:
        learner.learn(make_outcome())
        summary, state = learner.summaries("a")["m"], learner.export_arm("a", "m")
        new = Learner(CsUcbTable())
        new.register("a", "type-y")
        fresh = latency_s(new, ROW), energy_j(new, ROW), new.expect_length("m", 1000, None).mean
        damaged = [{**state[part][0], **rubbish}, None] if part == "lengths" else {**state[part], **rubbish}
        with pytest.raises(ValueError, match=r"model n: |not a state of cs-ucb-table"):
            new.import_node("a", [("m", summary, state), ("n", summary, {**state, part: damaged})], learner.recent("a"))
        assert (latency_s(new, ROW), energy_j(new, ROW), new.expect_length("m", 1000, None).mean) == fresh
        assert new.export_arm("a", "m")["policy"]["plays"] == 0
        assert new.summaries("a") == {}
        assert new.learn(make_outcome()) is not None

    def test_of_many_nodes_of_a_type_takes_the_time_of_the_laws_that_are_taken(
        self, learner: Learner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        learner.learn(make_outcome())
        arms = [("m", learner.summaries("a")["m"], learner.export_arm("a", "m"))]
        new, restored, restore = Learner(CsUcbTable()), [], TypeLaw.restored
        monkeypatch.setattr(TypeLaw, "restored", lambda law, state: restored.append(law) or restore(law, state))
        for number in range(20):
            new.register(f"n{number}", "type-y")
            new.import_node(f"n{number}", arms, RecentOutcomes(["task"], [1000.0 - number], 0.0))
        assert len(restored) == 4, "time and energy of the first node, checked and then taken"


class TestRecentOutcomes:
    def test_tell_those_that_an_earlier_process_forgot_by_time(self) -> None:
        recent = RecentOutcomes()
        for number in range(CAPACITY + 10):
            recent.add(f"task-{number:04}", 100.0 + number)
        recent = RecentOutcomes(recent.ids, recent.times_s, recent.since_s)
        assert (len(recent.ids), recent.ids[0], recent.since_s) == (CAPACITY, "task-0010", 109.0)
        assert recent.contains("task-0003", 103.0)
        assert recent.contains("task-0050", 150.0)
        assert not recent.contains("task-9999", 110.5)

    def test_what_an_earlier_process_learned_is_known_however_many_outcomes_follow(self) -> None:
        before = RecentOutcomes()
        for number in range(CAPACITY):
            before.add(f"task-{number:04}", 100.0 + number)
        recent = RecentOutcomes(before.ids, before.times_s, before.since_s)
        for number in range(CAPACITY):
            recent.add(f"later-{number:04}", 500.0 + number)
        assert recent.contains("task-0000", 100.0)
        assert not recent.contains("unknown", 100.0)

    def test_forget_nothing_over_many_restarts(self) -> None:
        recent = RecentOutcomes()
        outcomes = [(f"task-{number:04}", 100.0 + number) for number in range(4 * CAPACITY)]
        for number, (task_id, finished_s) in enumerate(outcomes):
            if number % 50 == 0:
                recent = RecentOutcomes(recent.ids, recent.times_s, recent.since_s)
            assert not recent.contains(task_id, finished_s)
            recent.add(task_id, finished_s)
        recent = RecentOutcomes(recent.ids, recent.times_s, recent.since_s)
        assert all(recent.contains(task_id, finished_s) for task_id, finished_s in outcomes)

    def test_know_ids_as_a_whole(self) -> None:
        recent = RecentOutcomes(["task-1", "task-22"], [100.0, 101.0], 0.0)
        recent.add("uid-of-a-long-name", 102.0)
        assert recent.ids == ["task-1", "task-22", "uid-of-a-long"]
        assert recent.times_s == [100.0, 101.0, 102.0]
        asked = ("task-1", "task-22", "uid-of-a-long", "uid-of-a-long-one", "task", "ask-1", "task-2", "")
        assert [recent.contains(one, 103.0) for one in asked] == [True] * 4 + [False] * 4

    def test_take_no_late_outcome_for_known(self) -> None:
        recent = RecentOutcomes()
        for number in range(CAPACITY + 10):
            recent.add(f"task-{number:04}", 100.0 + number)
        assert not recent.contains("task-late", 105.5)
