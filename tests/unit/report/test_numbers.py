from perllm_lab.report.numbers import number, with_interval


def test_numbers_have_three_digits() -> None:
    shown = [number(value) for value in (0.12345, 1.5, 1234.6, 0.0, None)]
    assert shown == ["0.123", "1.50", "1,235", "0", "-"]


def test_shares_are_shown_in_percent_with_half_of_their_interval() -> None:
    assert with_interval({"mean": 0.5, "high": 0.512}, {"unit": "share"}) == "50.0 ±1.2 %"
    assert with_interval({"mean": 0.5, "high": None}, {"unit": "J"}) == "0.500"
