import base64
import zlib
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.api.task import Tier
from perllm.learning.learner import MAX_ARMS, Learner
from perllm.learning.node_state import MAX_DATA, MAX_STATE, StateError, read_state
from perllm.learning.outcome import MAX_ENERGY_J, MAX_RUN_S
from perllm.learning.restoration import restore
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placer
from perllm.placement.request import PlacementRequest
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable
from unit.learning.outcomes import make_outcome
from unit.nodes.stored import MODELS, NODE, NOW_S, change, close_data, open_data, store, teach, to_old, walk

POLICIES = (CsUcb, CsUcbTable)
STORED = {policy.name: store(teach(policy()), policy()) for policy in POLICIES}
STATES = {name: open_data(status) for name, status in STORED.items()}
OLD = {name: to_old(status) for name, status in STORED.items()}

TREES = {"new": STATES, "old": OLD}
PATHS = {form: {name: list(walk(tree)) for name, tree in trees.items()} for form, trees in TREES.items()}

ODD_NUMBERS = [0, -1, 0.0, -0.0, 5e-324, 1e-300, -1e300, 1e300, 2**53, 2**63, 1e12, 1e15, -1e9]
ODD_VALUES = [..., None, True, "NaN", "text", "9" * 5000, [], {}, [0.0], [1e300] * 10, {"x": 1.0}]
VALUES = st.sampled_from(ODD_NUMBERS + ODD_VALUES) | st.floats(allow_nan=False, allow_infinity=False)


def take_back(status: dict[str, Any], policy: Policy) -> Learner:
    """Return a new learner that has been given a stored profile."""
    learner = Learner(policy)
    restore(learner, NODE.name, read_state(status), policy.name, NOW_S)
    return learner


def exercise(learner: Learner, policy: Policy) -> None:
    """Place a task, learn from it, and export: all must work, with figures that can be."""
    fleet, ledger = Fleet(), Ledger()
    fleet.put(NODE, learner.register(NODE.name, NODE.gpu_type), Bandwidth(1e9, 0.0))
    placer = Placer(
        policy,
        learner,
        fleet,
        ledger,
        circuits=Circuits(Random(0)),
        transmission_j_per_bit=dict.fromkeys(Tier, 1e-07),
        metrics_age_s=lambda _: None,
        unix_now=lambda: NOW_S,
        now=lambda: 0.0,
    )
    for number, model in enumerate(MODELS):
        placement = placer.choose(
            PlacementRequest(
                task_id=f"t-{model}",
                model=model,
                prompt_tokens=1000,
                output_tokens=None,
                input_bytes=4096,
                tiers=frozenset(Tier),
                due_s=NOW_S + 60.0,
                deadline_s=60.0,
            )
        )
        arms = placement.arms
        figures = np.concatenate([arms.latency_s, arms.energy_j, arms.work, placement.outlook.lengths])
        assert np.isfinite(figures).all()
        assert (figures > 0).all()
        assert np.isfinite(arms.hit_chance).all()
        placer.reserve(placement, NODE.name)
        placer.explain(placement, NODE.name).to_record()
        assert learner.learn(make_outcome(1000 + number, model=model, finished_s=NOW_S + 1)) is not None
    take_back(store(learner, policy), type(policy)())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", ["new", "old"])
def test_what_was_stored_is_taken_back_as_it_was(policy: type[Policy], form: str) -> None:
    status = {"new": STORED, "old": OLD}[form][policy.name]
    learner = take_back(status, policy())
    assert open_data(store(learner, policy())) == STATES[policy.name]
    exercise(learner, learner._policy)


@pytest.mark.parametrize(("policy", "former"), [(CsUcb, "net-hits"), (CsUcbTable, "cs-ucb")])
@pytest.mark.parametrize("form", ["new", "old"])
def test_what_was_stored_under_the_former_name_of_a_policy_is_taken_back(
    policy: type[Policy], former: str, form: str
) -> None:
    state = {**STATES[policy.name], "policy": former}
    status = {
        "new": {**STORED[policy.name], "state": {"data": close_data(state)}},
        "old": {**OLD[policy.name], "policy": former},
    }[form]
    assert open_data(store(take_back(status, policy()), policy())) == STATES[policy.name]


def test_means_of_the_paper_s_policy_do_not_get_into_the_policy_that_has_its_name_now() -> None:
    state = {**STATES["cs-ucb-table"], "policy": "cs-ucb"}
    learner = take_back({**STORED["cs-ucb-table"], "state": {"data": close_data(state)}}, CsUcb())
    arms = open_data(store(learner, CsUcb()))["models"]
    assert [arm["policy"] for arm in arms] == [{"meanEnergyJoules": 0.0, "outcomes": 0}] * len(arms)
    assert [arm["latency"] for arm in arms] == [arm["latency"] for arm in STATES["cs-ucb-table"]["models"]]


@settings(deadline=None)
@given(st.data())
def test_any_change_of_a_stored_profile_is_harmless_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(POLICIES))
    form = data.draw(st.sampled_from(["new", "old"]))
    path = data.draw(st.sampled_from(PATHS[form][kind.name]))
    value = data.draw(VALUES)
    if form == "new":
        state = change(STATES[kind.name], path, value)
        status = {**STORED[kind.name], "state": {"data": close_data(state)}}
    else:
        status = change(OLD[kind.name], path, value)
    policy = kind()
    learner = Learner(policy)
    try:
        restore(learner, NODE.name, read_state(status), policy.name, NOW_S)
    except StateError:
        learner.register(NODE.name, NODE.gpu_type)
        assert learner.summaries(NODE.name) == {}
    exercise(learner, policy)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            make_outcome,
            st.integers(0, 900),
            prompt_tokens=st.integers(1, 10**7),
            output_tokens=st.integers(1, 10**7),
            hint_tokens=st.none() | st.floats(1, 1e7),
            run_s=st.floats(1e-6, MAX_RUN_S),
            inference_energy_j=st.none() | st.floats(0, MAX_ENERGY_J),
            cold=st.floats(0, 1),
            occupancy=st.floats(0, 1e3),
            others_tokens=st.floats(0, 1e9),
            run_error=st.none() | st.floats(-30, 30),
        ),
        max_size=30,
    )
)
def test_whatever_can_be_learned_can_be_stored_and_taken_back(outcomes: list[Any]) -> None:
    policy = CsUcb()
    learner = Learner(policy)
    learner.register(NODE.name, NODE.gpu_type)
    for outcome in outcomes:
        learner.learn(outcome)
    status = store(learner, policy)
    assert open_data(store(take_back(status, CsUcb()), policy))["models"] == open_data(status)["models"]


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        ({"schemaVersion": 1}, "schemaVersion: 1"),
        ({"schemaVersion": 4}, "schemaVersion: 4"),
        ({"schemaVersion": None}, "schemaVersion"),
        ({"state": {}}, "state.data"),
        ({"state": None}, "state.data"),
        ({"state": {"data": "no base64!"}}, "state.data"),
        ({"state": {"data": STORED["cs-ucb"]["state"]["data"][:-8]}}, "state.data"),
        ({"state": {"data": base64.b64encode(Random(0).randbytes(100)).decode()}}, "state.data"),
        ({"state": {"data": close_data({"policy": "x"})}}, "gpuType"),
        ({"state": {"data": "A" * (MAX_DATA + 1)}}, "state.data"),
        ({"state": {"data": base64.b64encode(zlib.compress(b" " * (MAX_STATE + 1))).decode()}}, "state.data"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_state_is_refused_with_the_field(damage: dict[str, Any], field: str) -> None:
    with pytest.raises(StateError, match=field):
        read_state({**STORED["cs-ucb"], **damage})


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("models", 0, "count"), 0, "count"),
        (("models", 0, "met"), 99, "count"),
        (("models", 0, "latency", "errors", 2), 0.0, "model m: latency: errors"),
        (("models", 0, "latency", "errors", 0), 1e6, "model m: latency: errors"),
        (("models", 0, "latency", "gram", 0), -1.0, "model m: latency: gram"),
        (("models", 0, "latency", "gram", 1), 1e9, "model m: latency: gram"),
        (("models", 0, "energy", "moment", 0), 1e29, "model m: energy: moment"),
        (("models", 0, "energy", "moment", 0), 1e300, "models.0.energy.moment.0"),
        (("models", 0, "latency", "ratio", 1), 0.0, "model m: latency: ratio"),
        (("models", 0, "lengths", 0, "scale"), [0.0], "model m: lengths"),
        (("models", 0, "lengths", 0, "scale", 0), 0.0, "model m: lengths: scale"),
        (("models", 0, "lengths", 0, "counts", 50), -5.0, "model m: lengths: counts"),
        (("models", 0, "policy", "outcomes"), -1.0, "cs-ucb"),
        (("models", 0, "loadSeconds"), -1.0, "loadSeconds"),
        (("models", 1, "model"), "m", "each model once"),
        (("recentTimes",), [1.0], "recentTimes"),
    ],
    ids=str,
)
def test_numbers_that_nothing_can_have_taught_are_refused_with_the_field(
    path: tuple[str | int, ...], value: object, field: str
) -> None:
    state = change(STATES["cs-ucb"], path, value)
    assert state["models"][0]["model"] == "m"
    with pytest.raises(StateError, match=field):
        take_back({**STORED["cs-ucb"], "state": {"data": close_data(state)}}, CsUcb())


def test_times_beyond_now_hide_no_outcome() -> None:
    state = {**STATES["cs-ucb"], "recentSince": 3e9}
    learner = take_back({**STORED["cs-ucb"], "state": {"data": close_data(state)}}, CsUcb())
    assert learner.learn(make_outcome(999, finished_s=NOW_S + 1)) is not None


def test_less_informed_laws_override_none() -> None:
    policy = CsUcb()
    learner = teach(policy, outcomes=100)
    before = learner.export_arm("a", "m")
    few = teach(CsUcb(), outcomes=4)
    restore(learner, "b", read_state(store(few, policy)), policy.name, NOW_S)
    after = learner.export_arm("a", "m")
    assert {key: after[key] for key in ("latency", "energy", "lengths", "loadSeconds")} == {
        key: before[key] for key in ("latency", "energy", "lengths", "loadSeconds")
    }


def test_of_an_old_profile_with_many_models_the_latest_are_kept() -> None:
    old = OLD["cs-ucb"]
    model = old["models"][0]
    models = [
        {**model, "model": f"m-{number}", "lastOutcomeTime": f"1970-01-01T00:{number // 60:02}:{number % 60:02}Z"}
        for number in range(200)
    ]
    learner = take_back({**old, "models": models}, CsUcb())
    assert list(learner.summaries("a")) == [f"m-{number}" for number in range(200 - MAX_ARMS, 200)]
    assert learner.forgotten["a"] == 200 - MAX_ARMS


def test_a_profile_is_small_with_as_many_models_as_there_can_be() -> None:
    policy = CsUcb()
    names = tuple(f"{number:03}-{'x' * 249}" for number in range(MAX_ARMS))
    status = store(teach(policy, outcomes=20 * MAX_ARMS, models=names), policy)
    assert len(status["models"]) == MAX_ARMS
    assert len(orjson.dumps(status)) < 200_000
    assert set(status["models"][0]) == {
        *("model", "count", "meanLatencySeconds", "meanEnergyJoules", "deadlineMetShare", "lastOutcomeTime"),
        *("latency", "energy", "answers"),
    }
