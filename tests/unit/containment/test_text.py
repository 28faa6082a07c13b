"""Words of others are cut and cleaned before they go anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perllm.text import clean_line, clean_text, cut


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("two\nlines\r\nand a\ttab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07shell", "shell"),
        ("over\rwritten", "over written"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\ud800broken", "broken"),
        ("nul\x00", "nul"),
        ("familie 👨\u200d👩\u200d👧 grüßt", "familie 👨\u200d👩\u200d👧 grüßt"),
    ],
)
def test_a_line_holds_nothing_that_a_terminal_would_obey(text: str, cleaned: str) -> None:
    assert clean_line(text) == cleaned


def test_a_text_keeps_its_lines() -> None:
    assert clean_text("one\r\n\ttwo\x1b[2J\n", 100) == "one\n\ttwo\n"


def test_what_is_cut_off_is_shown() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert clean_line("abcdef", 6) == "abcdef"


@given(st.text(max_size=300), st.integers(1, 50))
def test_any_text_fits_and_can_be_written(text: str, limit: int) -> None:
    line = clean_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line
    line.encode()
    clean_text(text, limit).encode()
