"""A Prometheus that has scraped the page of an exporter again and again."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from perllm.telemetry.series import Series

PAGES = Path(__file__).parent / "exporters"
SCRAPE_S = 5.0

_SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)?(?:\{(?P<matchers>.*)\})?\[(?P<window>\d+)s\]")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Target:
    """One scrape target.

    Attributes:
        page: Name of the file with its page.
        labels: What Prometheus adds to its series.
        rates: By how much the series of a metric rise per second, by the name of the metric.
    """

    page: str
    labels: Mapping[str, str]
    rates: Mapping[str, float]


class ScrapedTargets:
    """Answers selectors; every target has been scraped since ``first_s``."""

    def __init__(self, targets: Sequence[Target], first_s: float, now_s: float) -> None:
        times_s = [first_s + SCRAPE_S * step for step in range(int((now_s - first_s) / SCRAPE_S) + 1)]
        self._series = [
            Series(
                {"__name__": name, **labels, **target.labels},
                tuple((time_s, value + target.rates.get(name, 0.0) * (time_s - first_s)) for time_s in times_s),
            )
            for target in targets
            for name, labels, value in _read(target.page)
        ]

    async def query(self, promql: str) -> Sequence[Series]:
        found = _SELECTOR.fullmatch(promql)
        assert found, promql
        matchers = _MATCHER.findall(found["matchers"] or "")
        if found["name"]:
            matchers.append(("__name__", "=", found["name"]))
        return [series for series in self._series if all(_fits(series.labels, *one) for one in matchers)]


def _read(page: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    text = (PAGES / page).read_text()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser adds the suffix that counters should have; Prometheus leaves names as they are.
            name = sample.name if sample.name in text else sample.name.removesuffix("_total")
            yield name, sample.labels, sample.value


def _fits(labels: Mapping[str, str], label: str, operator: str, value: str) -> bool:
    own = labels.get(label, "")
    is_equal = bool(re.fullmatch(value, own)) if "~" in operator else own == value
    return is_equal is not operator.startswith("!")
