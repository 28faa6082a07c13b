import orjson
import pytest

from perllm.placement.decision import RecordError, read_record
from unit.placement.records import USUAL, make_decision


def test_a_record_is_one_line_that_reads_back_as_the_decision() -> None:
    record = USUAL.to_record()
    assert "\n" not in record
    assert read_record(record) == USUAL


def test_a_record_without_score_and_metrics_reads_back() -> None:
    decision = make_decision(score=None, metrics_age_s=None, rejected={})
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
    + [USUAL.to_record().replace("0.25", "NaN")],
)
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="unreadable decision record"):
        read_record(text)


def test_the_status_counts_from_the_creation_of_the_task() -> None:
    status = USUAL.to_status(created_s=1000.0)
    assert (status.predicted_latency, status.predicted_latency_low, status.predicted_latency_high) == (6.0, 5.0, 7.0)
    assert (status.hit_chance, status.harm, status.expected_output_tokens) == (0.9, 0.02, 100.0)
    assert (status.predicted_energy, status.score, status.candidates) == (500.0, 0.25, 3)
    assert (status.rejected, status.metrics_age, status.explored) == ({"compute": 2, "late": 1}, 1.5, False)


def test_what_was_foreseen_for_a_length_is_what_is_fixed_and_what_each_token_takes() -> None:
    assert USUAL.given_latency_s(200) == pytest.approx(2.0 + 200 * 0.02)
    assert USUAL.given_energy_j(200) == pytest.approx(100 + 200 * 4.0)
