import re
from itertools import pairwise

from perllm_lab.report.charts import PLAIN, Bar, Frame, Line, Part, draw_bars, draw_lines, draw_parts, spread_labels
from perllm_lab.report.numbers import number
from perllm_lab.report.style import Look

LOOK = Look("#ff0000")


def texts(chart: str | None) -> list[str]:
    """What a person can read in a chart."""
    return re.findall(r"<text [^>]*>(.*?)</text>", chart or "")


def test_a_bar_far_beyond_the_others_is_cut_and_marked() -> None:
    values = {"a": 1.0, "b": 1.2, "c": 400.0}
    chart = draw_bars([Bar(name, value, None, None, f"{value} J", "red") for name, value in values.items()])
    assert {"a", "1.0 J", "c", "» 400.0 J"} <= set(texts(chart))
    assert "400" not in texts(chart), "the axis ends where the bar is cut"


def test_parts_show_their_figures_where_there_is_room_and_their_sum() -> None:
    chart = draw_parts(["a"], [Part("big", [9.8], "red"), Part("small", [0.2], "blue")], number, PLAIN, has_sums=True)
    assert {"a", "big", "small", "9.80", "10.0"} <= set(texts(chart))
    assert "0.200" not in texts(chart)


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    chart = draw_lines([Line("a", LOOK, [0.0, 1.0, 2.0, 3.0], [1.0, None, 2.0, 3.0])], Frame("x"))
    drawn = re.search(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: #ff0000', chart or "")
    assert drawn is not None
    assert drawn[1].count("M") == 2


def test_a_dollar_in_a_name_begins_no_formula() -> None:
    assert "$a_1$" in texts(draw_lines([Line("$a_1$", LOOK, [0.0, 1.0], [1.0, 2.0])], Frame("x")))


def test_equal_data_gives_equal_charts() -> None:
    one, other = (draw_lines([Line("a", LOOK, [0.0, 1.0], [1.0, 2.0])], Frame("x", log_y=True)) for _ in range(2))
    assert one == other


def test_nothing_is_drawn_without_figures() -> None:
    assert draw_bars([Bar("a", None, None, None, "-", "red")]) is None
    assert draw_lines([Line("a", LOOK, [1.0], [None])], Frame("x")) is None
    assert draw_parts([], [Part("big", [], "red")], number, PLAIN, has_sums=True) is None


def test_labels_do_not_overlap() -> None:
    places = sorted(spread_labels([0.5, 0.5, 0.51, 0.99], 0.1))
    assert all(after - before >= 0.1 - 1e-9 for before, after in pairwise(places))
    assert places[-1] <= 1.0
