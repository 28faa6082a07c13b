from itertools import pairwise

from perllm_lab.report.charts import Bar, Frame, Line, draw_bars, draw_lines
from perllm_lab.report.svg import Axis, number, spread_labels, tick


def test_axis_maps_values_and_keeps_them_inside() -> None:
    axis = Axis(0.0, 10.0, 100.0, 200.0)
    assert [axis.at(value) for value in (0.0, 5.0, 99.0)] == [100.0, 150.0, 200.0]
    assert Axis(1.0, 100.0, 0.0, 10.0, log=True).at(10.0) == 5.0


def test_ticks_are_round() -> None:
    assert Axis(0.0, 0.93, 0, 1).ticks() == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert Axis(90.0, 2100.0, 0, 1, log=True).ticks() == [100, 200, 500, 1000, 2000]


def test_labels_do_not_overlap() -> None:
    places = spread_labels([50.0, 50.0, 51.0, 99.0], 10.0, 0.0, 100.0)
    ordered = sorted(places)
    assert all(after - before >= 10.0 for before, after in pairwise(ordered))
    assert ordered[-1] <= 100.0


def test_numbers_have_three_digits() -> None:
    shown = [number(value) for value in (0.12345, 1.5, 1234.6, 0.0, None)]
    assert shown == ["0.123", "1.50", "1,235", "0", "-"]
    assert [tick(value) for value in (0.2, 1000.0)] == ["0.2", "1,000"]


def test_a_bar_far_beyond_the_others_is_cut_and_says_so() -> None:
    values = {"a": 1.0, "b": 1.2, "c": 400.0}
    drawn = draw_bars("energy", [Bar(name, value, None, None, f"{value} J", "red") for name, value in values.items()])
    assert "» 400.0 J" in drawn
    assert drawn.count("»") == 1


def test_a_hole_interrupts_a_line() -> None:
    line = Line("a", [0.0, 1.0, 2.0, 3.0], [1.0, None, 2.0, 3.0], "red")
    assert draw_lines("hits", [line], Frame("x", "y")).count("stroke:red") == 2
