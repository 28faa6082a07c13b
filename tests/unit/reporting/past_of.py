"""A Prometheus that has scraped counters; it answers the queries of reports."""

import re
from collections.abc import Callable, Mapping, Sequence

from perllm.reporting.increases import Past, Period
from perllm.telemetry.series import Series

END_S = 1_000_000
PERIOD = Period(END_S - 3600, END_S, 60)
SCRAPE_S = 30

Samples = Mapping[int, float]
_CHOICES: Mapping[str, Callable[[list[float]], float]] = {"max": max, "min": min, "last": lambda seen: seen[-1]}


class ScrapedMetrics:
    """Series by the name of their metric, each with its samples by Unix time."""

    def __init__(self) -> None:
        self.series: list[tuple[dict[str, str], Samples]] = []
        self.matchers: list[str] = []

    def put(self, metric: str, samples: Samples, **labels: str) -> None:
        self.series.append(({"__name__": metric, **labels}, samples))

    def count(self, counter: str, amount: float, *, created_s: int = PERIOD.start_s + 600, **labels: str) -> None:
        """Put a counter that rises from 0 to `amount` within the period, and was first seen when it was at half."""
        self.put(
            f"{counter}_total", {created_s + 20: amount / 2, END_S - 600: amount / 2, END_S - 10: amount}, **labels
        )
        self.put(f"{counter}_created", {created_s + 20: created_s, END_S - 10: created_s}, **labels)

    async def query_range(self, promql: str, start_s: int, end_s: int, step_s: int) -> Sequence[Series]:
        found = re.fullmatch(r"(max|min|last)_over_time\((\w+)(\{.*\})?\[(\d+)s\]\)", promql)
        assert found, promql
        self.matchers.append(found[3] or "")
        answer = []
        for labels, samples in self.series:
            asked = dict(re.findall(r'(\w+)="([^"]*)"', found[3] or ""))
            if labels["__name__"] != found[2] or not asked.items() <= {**labels, "cluster": "edge"}.items():
                continue
            values = []
            for time_s in range(start_s, end_s + 1, step_s):
                seen = [value for at_s, value in samples.items() if time_s - int(found[4]) < at_s <= time_s]
                values += [(float(time_s), _CHOICES[found[1]](seen))] if seen else []
            without_name = {key: value for key, value in labels.items() if key != "__name__"}
            answer.append(Series(without_name, tuple(values)))
        return answer

    def past(self, **matchers: str) -> Past:
        return Past(self, PERIOD, matchers)


def scrape(*stretches: tuple[int, float, float], start_s: int = PERIOD.start_s - 600) -> dict[int, float]:
    """Return samples every 30 s; each stretch is its length in seconds, its first value, and its rise per second."""
    samples, at_s = {}, start_s
    for length_s, value, slope in stretches:
        samples |= {at_s + passed_s: value + slope * passed_s for passed_s in range(0, length_s, SCRAPE_S)}
        at_s += length_s
    return samples
