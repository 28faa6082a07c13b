import numpy as np
import pytest

from perllm.learning.learner import DEFAULT_OUTPUT_TOKENS, Learner
from perllm.learning.recent import CAPACITY, RecentOutcomes
from perllm.policy.cs_ucb import CsUcb
from unit.learning.outcomes import make_outcome

ROW = np.array([0])
ALONE = np.array([1.0])


@pytest.fixture
def learner() -> Learner:
    learner = Learner(CsUcb())
    learner.register("a", "type-y")
    return learner


class TestRows:
    def test_stay_for_the_life_of_the_process(self, learner: Learner) -> None:
        assert [learner.register(name, "type-y") for name in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]

    def test_follow_a_node_to_another_type(self, learner: Learner) -> None:
        learner.register("b", "type-x")
        for number in range(50):
            learner.learn(make_outcome(number, run_s=1.0))
        before_s, _ = learner.predict("m", np.array([1]), 1000, 100, ALONE)
        learner.register("b", "type-y")
        after_s, _ = learner.predict("m", np.array([1]), 1000, 100, ALONE)
        assert after_s < before_s / 2


class TestLearning:
    def test_brings_predictions_near_to_what_was_observed(self, learner: Learner) -> None:
        for number in range(100):
            learner.learn(make_outcome(number, run_s=4.0, inference_energy_j=300.0))
        run_s, energy_j = learner.predict("m", ROW, 1000, 100, np.array([2.0]))
        assert run_s == pytest.approx([4.0], rel=0.05)
        assert energy_j == pytest.approx([300.0], rel=0.05)

    def test_returns_the_reward_of_the_whole_energy(self, learner: Learner) -> None:
        # 310 J of 100 x 10 + 1000 x 0.15 J; slack 0.5 of time and of resources, by its weight of 0.5
        assert learner.learn(make_outcome()) == pytest.approx(-310 / 1150 + 0.25)

    def test_without_measured_energy_rewards_by_the_prediction_and_leaves_the_energy_law_alone(
        self, learner: Learner
    ) -> None:
        _, before_j = learner.predict("m", ROW, 1000, 100, ALONE)
        assert learner.learn(make_outcome(inference_energy_j=None)) == pytest.approx(-500 / 1150 + 0.25)
        _, after_j = learner.predict("m", ROW, 1000, 100, ALONE)
        assert after_j == before_j
        assert learner.summaries("a")["m"].energy_count == 0

    def test_marks_the_node_as_changed(self, learner: Learner) -> None:
        learner.learn(make_outcome())
        assert learner.dirty == {"a"}

    def test_never_counts_an_outcome_twice(self, learner: Learner) -> None:
        assert learner.learn(make_outcome()) is not None
        learner.dirty.clear()
        assert learner.learn(make_outcome()) is None
        assert learner.summaries("a")["m"].count == 1
        assert not learner.dirty

    def test_keeps_plain_averages_for_people(self, learner: Learner) -> None:
        learner.learn(make_outcome(1, latency_s=4, inference_energy_j=100))
        learner.learn(make_outcome(2, latency_s=12, inference_energy_j=None))
        summary = learner.summaries("a")["m"]
        assert (summary.count, summary.latency_s, summary.met) == (2, 8.0, 1)
        assert (summary.energy_count, summary.energy_j) == (1, 110.0)
        assert summary.last_outcome_s == 1002.0


class TestAnswerLength:
    def test_of_an_unknown_model_is_the_published_mean(self, learner: Learner) -> None:
        assert learner.expected_output_tokens("never seen") == DEFAULT_OUTPUT_TOKENS

    def test_moves_from_there_to_what_was_observed(self, learner: Learner) -> None:
        for number in range(5):
            learner.learn(make_outcome(number, output_tokens=400))
        assert learner.expected_output_tokens("m") == pytest.approx(300)


class TestState:
    def test_survives_export_and_import(self, learner: Learner) -> None:
        for number in range(10):
            learner.learn(make_outcome(number))
        new = Learner(CsUcb())
        new.register("a", "type-y")
        new.import_node("a", [("m", learner.summaries("a")["m"], learner.export_arm("a", "m"))], learner.recent("a"))
        assert new.export_arm("a", "m") == learner.export_arm("a", "m")
        assert new.learn(make_outcome(3)) is None
        assert new.learn(make_outcome(99)) is not None

    @pytest.mark.parametrize("part", ["policy", "latency", "energy"])
    @pytest.mark.parametrize("rubbish", ["text", {}, [1]])
    def test_that_fits_in_part_only_changes_nothing(self, learner: Learner, part: str, rubbish: object) -> None:
        learner.learn(make_outcome())
        summary, state = learner.summaries("a")["m"], learner.export_arm("a", "m")
        new = Learner(CsUcb())
        new.register("a", "type-y")
        fresh = new.predict("m", ROW, 1000, 100, ALONE)
        with pytest.raises(ValueError, match="not a state of this version"):
            new.import_node("a", [("m", summary, state), ("n", summary, {**state, part: rubbish})], learner.recent("a"))
        assert new.predict("m", ROW, 1000, 100, ALONE) == fresh
        assert new.export_arm("a", "m")["policy"]["plays"] == 0
        assert new.summaries("a") == {}
        assert new.learn(make_outcome()) is not None


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

    def test_take_no_late_outcome_for_known(self) -> None:
        recent = RecentOutcomes()
        for number in range(CAPACITY + 10):
            recent.add(f"task-{number:04}", 100.0 + number)
        assert not recent.contains("task-late", 105.5)
