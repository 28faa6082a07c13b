import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
GLOSSARY = ROOT / "docs" / "glossary.md"
PLACES = ("operator", "charts", "docs", "examples", "README.md", "CONTRIBUTING.md")
SUFFIXES = {".css", ".json", ".md", ".py", ".sh", ".template", ".tpl", ".txt", ".yaml"}


def read_retired(glossary: str) -> dict[str, str]:
    """What to write instead of each retired word; rows with a parenthesis are left to the reader's judgement."""
    _, _, table = glossary.partition("## Words that are not used")
    rows = re.findall(r"^\| ([a-z ,]+) \| ([^|]+) \|$", table, re.MULTILINE)
    return {word: instead for words, instead in rows if words != "not" for word in words.split(", ")}


def find_retired(text: str, retired: Mapping[str, str]) -> Iterator[str]:
    """Every line with a retired word, as a word or at the end of an identifier, and what to write instead."""
    for word, instead in retired.items():
        pattern = re.compile(rf"(?<![a-z]){word.replace(' ', '[ _]')}(?![a-z_])", re.IGNORECASE)
        for number, line in enumerate(text.splitlines(), start=1):
            if pattern.search(line):
                yield f"{number}: write {instead!r} instead of {word!r}: {line.strip()}"


def test_retired_words_are_found_in_text_and_identifiers_and_not_in_other_words() -> None:
    retired = read_retired(GLOSSARY.read_text("utf-8"))
    assert list(find_retired("class Dress:", retired)) == [
        "1: write 'deployment mode' instead of 'dress': class Dress:"
    ]
    assert len(list(find_retired("two rivals\nself._keep_house()\nasked in vain", retired))) == 3
    assert list(find_retired("an address; besides, his arrival; overcrowded", retired)) == []


def test_retired_words_are_not_used() -> None:
    retired = read_retired(GLOSSARY.read_text("utf-8"))
    places = [ROOT / place for place in PLACES]
    files = {path for place in places for path in (place, *place.rglob("*")) if path.suffix in SUFFIXES} - {GLOSSARY}
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in find_retired(path.read_text(), retired)]
    assert sorted(found) == []
