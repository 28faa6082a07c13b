import pytest

from perllm.api.quantities import parse_duration_s, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("1h2m3.5s", 3723.5), ("300ms", 0.3), ("1m", 60.0), ("250us", 0.00025), ("0s", 0.0)],
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "-5s", "+5s", "5 s", "1d", "s", "1.s", "infs", "30s\n", "1e3s", "٣s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 30s"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("value", "number"),
    [(42, 42), ("0", 0), ("2Mi", 2 * 2**20), ("1.5k", 1500), ("1E", 10**18), ("1e3", 1000), ("100m", 1), (".5Ki", 512)],
)
def test_quantity_is_read_as_a_whole_number_rounded_up(value: int | str, number: int) -> None:
    assert parse_quantity(value) == number


@pytest.mark.parametrize("value", ["", "Mi", "2MiB", "2 Mi", "1e999", "NaN", "0x10", "2mi"])
def test_what_is_no_quantity_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(ValueError, match="write for example 512Ki"):
        parse_quantity(value)
