import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.telemetry.series import MAX_LABEL, MAX_VALUE, SeriesError, read_result
from perllm.text import clean_line

LABELS = {"__name__": "watts", "node": "a"}
GOOD = {"metric": LABELS, "values": [[100, "1"], [105, "2"]]}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
PAIRS = st.lists(st.tuples(JSON, JSON).map(list) | JSON, max_size=6)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"metric": JSON, "values": PAIRS | JSON, "value": JSON, "histograms": JSON}
)


@given(JSON | st.lists(ENTRIES | st.just(GOOD) | JSON, max_size=5))
def test_any_result_is_read_or_refused_in_words(result: object) -> None:
    try:
        found = read_result(result)
    except SeriesError:
        return
    assert isinstance(result, list)
    assert len(found) == len(result)
    for series in found:
        times_s = [time_s for time_s, _ in series.samples]
        assert times_s == sorted(set(times_s))
        assert all(abs(value) <= MAX_VALUE for _, value in series.samples)
        assert not (series.fault and series.samples)
        assert all(clean_line(text, MAX_LABEL) == text for pair in series.labels.items() for text in pair)


def test_samples_come_in_the_order_of_time_one_of_each() -> None:
    (series,) = read_result([{"metric": LABELS, "values": [[105, "2"], ["100", 1], [105, "9"], [110, "NaN"]]}])
    assert series.samples == ((100.0, 1.0), (105.0, 2.0))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("text", "a str instead of an object"),
        ({"values": []}, "no labels"),
        ({"metric": ["node", "a"], "values": []}, "no labels"),
        ({"metric": LABELS, "histograms": []}, "no list of samples"),
        ({"metric": LABELS, "value": [100, "1"]}, "no list of samples"),
        ({"metric": LABELS, "values": {"100": "1"}}, "no list of samples"),
        ({"metric": LABELS, "values": [100, "1"]}, "not pairs of time and value"),
        ({"metric": LABELS, "values": [[100, "1", "2"]]}, "not pairs of time and value"),
        ({"metric": LABELS, "values": [["yesterday", "1"]]}, "not pairs of time and value"),
        ({"metric": LABELS, "values": [[1e300, "1"]]}, "a timestamp is out of range"),
        ({"metric": LABELS, "values": [[100, "1e300"]]}, "a value is out of range"),
    ],
    ids=str,
)
def test_an_odd_series_spoils_only_itself_and_says_why(entry: object, fault: str) -> None:
    odd, good = read_result([entry, GOOD])
    assert fault in odd.fault
    assert (good.fault, len(good.samples)) == ("", 2)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([1700000000, "5"], r"returned a single value without labels; the query must end in a range"),
        ([{"metric": {"node": "a"}, "value": [100, "1"]}], r"one value per series .* without sum\(\) or rate\(\)"),
        ({"a": 1}, "a dict instead of a list"),
        (None, "nothing instead of a list"),
    ],
)
def test_a_result_of_another_type_says_what_the_query_must_be(result: object, words: str) -> None:
    with pytest.raises(SeriesError, match=words):
        read_result(result)


def test_labels_are_clean_and_of_bounded_length() -> None:
    (series,) = read_result([{"metric": {"node": "a\x1b[31m\nb", "pod": "x" * 1000, "port": 9100}, "values": []}])
    assert series.labels == {"node": "a b", "pod": "x" * (MAX_LABEL - 1) + "…"}
