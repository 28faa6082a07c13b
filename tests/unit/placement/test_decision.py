import dataclasses

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.placement.alternatives import MAX_ALTERNATIVES, Alternative
from perllm.placement.counterfactual import Prospect
from perllm.placement.decision import MAX_RECORD, RecordError, read_record
from unit.placement.records import USUAL, make_decision


def test_a_record_is_one_line_that_reads_back_as_the_decision() -> None:
    record = USUAL.to_record()
    assert "\n" not in record
    assert read_record(record) == USUAL


def test_the_keys_of_a_record_stay_so_that_pods_bound_before_an_upgrade_are_understood() -> None:
    written = (
        '{"task_id":"uid-t","policy":"cs-ucb","model":"m","node":"n","tier":"edge","gpu_type":"T4","decided_s":1002.0,'
        '"latency_s":4.0,"latency_low_s":3.0,"latency_high_s":5.0,"hit_chance":0.9,"harm":0.02,"energy_j":500.0,'
        '"transmission_energy_j":10.0,"time_left_s":8.0,"demand_bps":1000000.0,"occupancy":2.0,"prompt_tokens":1000.0,'
        '"hint_tokens":null,"output_tokens":100.0,"length_centre":4.5,"length_spread":0.5,"input_bits":8000000.0,'
        '"gpus":1.0,"fixed_s":2.0,"transfer_s":0.5,"reading_s":0.4,"work_s":0.6,"token_s":0.02,"alone_s":0.01,'
        '"crowd_s":0.002,"fixed_j":100.0,"token_j":4.0,"cold":0.0,"score":0.25,"slack":0.5,"resource_slack":0.6,'
        '"meets_deadline":true,"explored":false,"candidates":3,"rejected":{"compute":2,"late":1},"metrics_age_s":1.5,'
        '"reason":"highest index of 3 candidates"}'
    )
    new = {"is_served": False, "prompts": 1, "service": "", "time_spread": 0.3, "pace": 1.0}
    assert read_record(written) == USUAL
    assert orjson.loads(USUAL.to_record()) == orjson.loads(written) | new | {
        "time_spread": 0.2,
        "counterfactual": None,
        "alternatives": [],
    }


def test_the_counterfactual_travels_with_the_record() -> None:
    other = Prospect(node="k", gpu_type="A100", at_s=1001.0, forecast=make_decision(energy_j=900.0).forecast)
    decision = make_decision(counterfactual=other)
    assert read_record(decision.to_record()) == decision
    assert len(decision.to_record()) < MAX_RECORD / 2


def test_the_status_shows_the_counterfactual_from_the_creation_of_the_task_on() -> None:
    other = Prospect(node="k", gpu_type="A100", at_s=1001.0, forecast=make_decision(energy_j=900.0).forecast)
    shown = make_decision(counterfactual=other).to_status(1000.0).counterfactual
    assert shown is not None
    assert (shown.node, shown.predicted_latency, shown.predicted_energy, shown.hit_chance) == ("k", 5.0, 900.0, 0.9)


OTHER = Alternative(
    node="o",
    gpu_type="A100",
    latency_s=3.0,
    energy_j=900.0,
    hit_chance=0.95,
    has_room=False,
    score=0.2,
    lost_by="energy",
)


def test_the_alternatives_travel_with_the_record() -> None:
    decision = make_decision(alternatives=(OTHER, dataclasses.replace(OTHER, score=None, lost_by="")))
    assert read_record(decision.to_record()) == decision


def test_the_status_shows_the_alternatives_from_the_creation_of_the_task_on() -> None:
    status = make_decision(alternatives=(OTHER,)).to_status(1000.0)
    (shown,) = status.alternatives
    assert (shown.node, shown.predicted_latency, shown.predicted_energy) == ("o", 5.0, 900.0)
    assert (shown.hit_chance, shown.has_room, shown.lost_by) == (0.95, False, "energy")
    assert status.waited == 2.0


@pytest.mark.parametrize("wrong", [{"latency_s": float("1e300")}, {"energy_j": -1.0}])
def test_impossible_figures_of_an_alternative_are_refused(wrong: dict[str, float]) -> None:
    record = orjson.loads(make_decision(alternatives=(OTHER,)).to_record())
    record["alternatives"][0] |= wrong
    with pytest.raises(RecordError, match="impossible figures of"):
        read_record(orjson.dumps(record).decode())


def test_of_a_record_that_others_wrote_a_few_alternatives_are_believed() -> None:
    record = orjson.loads(make_decision(alternatives=(OTHER,)).to_record())
    record["alternatives"] *= 20
    assert len(read_record(orjson.dumps(record).decode()).alternatives) == MAX_ALTERNATIVES


def test_impossible_figures_of_the_counterfactual_are_refused_too() -> None:
    record = orjson.loads(make_decision(counterfactual=USUAL.to_prospect()).to_record())
    record["counterfactual"]["time_spread"] = 0.0
    with pytest.raises(RecordError, match="impossible figures of time_spread"):
        read_record(orjson.dumps(record).decode())


def test_a_record_without_score_and_metrics_reads_back() -> None:
    decision = make_decision(score=None, metrics_age_s=None, excluded={})
    assert read_record(decision.to_record()) == decision


def test_a_record_of_a_later_version_with_more_fields_is_understood() -> None:
    assert read_record(orjson.dumps({**orjson.loads(USUAL.to_record()), "new": 1}).decode()) == USUAL


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"text"', "{}", USUAL.to_record().replace("edge", "fog")]
    + [
        orjson.dumps({**orjson.loads(USUAL.to_record()), **wrong}).decode()
        for wrong in ({"latency_s": "long"}, {"rejected": [1]}, {"candidates": None}, {"node": 5})
    ]
    + [USUAL.to_record().replace("0.25", text) for text in ("NaN", "Infinity", "1e300", "9" * 400)]
    + ["[" * 5000, " " * (MAX_RECORD + 1), "\ud800"],
)
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="unreadable decision record"):
        read_record(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpus": 0.0},
        {"length_spread": 0.0},
        {"alone_s": -1.0},
        {"fixed_s": -1.0},
        # What is divided by one so small is not finite, and stops all decisions.
        {"alone_s": 1e-320},
        {"length_spread": 1e-320},
        {"gpus": 1e-320},
    ],
)
def test_figures_that_nothing_can_be_made_from_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(RecordError, match=f"impossible figures of {next(iter(wrong))}"):
        read_record(orjson.dumps({**orjson.loads(USUAL.to_record()), **wrong}).decode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(name=st.sampled_from(sorted(orjson.loads(USUAL.to_record()))), value=_JSON)
def test_any_change_of_a_record_is_read_or_refused(name: str, value: object) -> None:
    try:
        text = orjson.dumps({**orjson.loads(USUAL.to_record()), name: value}).decode()
    except TypeError:  # text that is no Unicode
        return
    try:
        decision = read_record(text)
    except RecordError:
        return
    assert len(decision.to_record()) <= MAX_RECORD


def test_a_record_is_short_whatever_it_tells() -> None:
    many = {f"{number}{'x' * 100}": number for number in range(1000)}
    long = dataclasses.replace(OTHER, node="n" * 10_000, gpu_type="g" * 10_000, lost_by="l" * 10_000)
    decision = make_decision(
        reason='"' * 10_000, model="m" * 10_000, excluded=many, alternatives=(long,) * MAX_ALTERNATIVES
    )
    record = decision.to_record()
    assert len(record) < MAX_RECORD * 3 / 4
    assert read_record(record).forecast == decision.forecast


def test_the_status_counts_from_the_creation_of_the_task() -> None:
    status = USUAL.to_status(created_s=1000.0)
    assert (status.predicted_latency, status.predicted_latency_low, status.predicted_latency_high) == (6.0, 5.0, 7.0)
    assert (status.hit_chance, status.harm, status.expected_output_tokens) == (0.9, 0.02, 100.0)
    assert (status.predicted_energy, status.score, status.candidates) == (500.0, 0.25, 3)
    assert (status.rejected, status.metrics_age, status.explored) == ({"compute": 2, "late": 1}, 1.5, False)


def test_what_was_foreseen_for_a_length_is_what_is_fixed_and_what_each_token_takes() -> None:
    assert USUAL.forecast.latency_given_s(200) == pytest.approx(2.0 + 200 * 0.02)
    assert USUAL.forecast.energy_given_j(200) == pytest.approx(100 + 200 * 4.0)
