import numpy as np

from perllm.learning.learner import MAX_ARMS, Learner
from perllm.learning.model_table import MAX_ARRIVED, MAX_MODELS, ModelTable
from perllm.policy.table import CsUcbTable
from unit.learning.outcomes import make_outcome


def test_a_look_at_a_model_leaves_nothing_behind() -> None:
    learner = Learner(CsUcbTable())
    learner.register("a", "T4")
    rows = np.array([0])
    shared = learner.laws("m-0", rows)
    for number in range(10_000):
        model = f"m-{number}"
        learner.expect_length(model, 1000, None)
        learner.note_arrival(model, 1000, 100)
        assert learner.laws(model, rows) is shared
        assert learner.length_kind(model, has_hint=True) == 1
    assert len(learner.shapes) == 2


def test_the_usual_task_of_a_model_is_kept_until_it_is_known() -> None:
    table = ModelTable()
    table.usual("m").add(5000.0, 10.0)
    arrived = table.usual("m").prompt_tokens
    assert table.use("m").usual.prompt_tokens == arrived > table.find("other").usual.prompt_tokens
    for number in range(2 * MAX_ARRIVED):
        table.usual(f"m-{number}")
    assert len(table._arrived) == MAX_ARRIVED


def test_no_single_task_sets_what_is_usual() -> None:
    usual = ModelTable().usual("m")
    before = usual.prompt_tokens, usual.output_tokens
    usual.add(1e7, 1e7)
    assert usual.prompt_tokens < 1.1 * before[0]
    assert usual.output_tokens < 1.1 * before[1]


def test_models_without_outcomes_are_forgotten_first_then_those_used_least_recently() -> None:
    learner = Learner(CsUcbTable())
    learner.register("a", "T4")
    for number in range(MAX_ARMS):
        learner.learn(make_outcome(number, model=f"learned-{number}"))
    for number in range(MAX_MODELS):
        learner.load(0, f"placed-{number}", 0.0)
    learner.trim(in_use={"placed-0"})
    models = learner._models
    assert len(models) == MAX_MODELS
    assert "placed-0" in models
    assert "placed-1" not in models
    assert "learned-0" in models
    for number in range(MAX_MODELS):
        learner.learn(make_outcome(1000 + number, model=f"later-{number}"))
    learner.trim(in_use=())
    assert "learned-0" not in models
    assert f"later-{MAX_MODELS - 1}" in models


def test_a_node_remembers_the_models_with_the_latest_outcomes() -> None:
    learner = Learner(CsUcbTable())
    learner.register("a", "T4")
    for number in range(MAX_ARMS):
        learner.learn(make_outcome(number, model=f"m-{number}"))
    learner.learn(make_outcome(500, model="m-0"))
    learner.learn(make_outcome(501, model="new"))
    assert "m-1" not in learner.summaries("a")
    assert {"m-0", "new"} <= set(learner.summaries("a"))
    assert learner.forgotten["a"] == 1


def test_tasks_in_flight_keep_the_shape_that_they_refer_to() -> None:
    table = ModelTable()
    for number in range(3):
        laws = table.use(f"m-{number}")
        for _ in range(50):
            laws.lengths.learn(1000, None, 10.0 ** (number + 1))
        table.publish(laws)
    kind = table.find("m-2").lengths.first_kind
    before = table.shapes[kind].copy()
    table.forget("m-1")
    freed = table.use("m-3").lengths.first_kind
    assert np.array_equal(table.shapes[kind], before)
    assert np.array_equal(table.shapes[freed], table.unknown.lengths.shapes[0])
    assert len(table.shapes) == 8


def test_three_times_as_many_models_as_are_kept_leave_no_more_behind() -> None:
    learner = Learner(CsUcbTable())
    learner.register("a", "T4")
    for number in range(3 * MAX_MODELS):
        learner.load(0, f"m-{number}", 0.0)
        if number % 50 == 0:
            learner.trim(in_use=())
    learner.trim(in_use=())
    assert len(learner._models) == MAX_MODELS
    assert len(learner.shapes) <= 2 * (MAX_MODELS + 51)
