"""How true the attribution is on nodes that prefill one task at a time and decode the others together."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import pytest

from perllm.energy.attribution import attribute, count_present, estimate_idle_power_w
from perllm.energy.spans import Span
from unit.energy.simulated_node import LOADS, run, sample, weigh_all


@dataclass(frozen=True)
class Judged:
    """One task: when it ended, how long it took, and its energy as attributed and in truth."""

    end_s: float
    length_s: float
    found_j: float
    true_j: float

    @property
    def error(self) -> float:
        return self.found_j / self.true_j - 1


def judge(name: str, kind: str, every_s: float) -> list[Judged]:
    """Return what is attributed to the tasks from samples of a counter or a power gauge, ``every_s`` seconds apart."""
    tasks, _ = run(name)
    spans = [
        Span(str(index), task.start_s, task.end_s or 0.0, task.prompt)
        if task.was_ended
        else Span(str(index), task.start_s, task.end_s or 0.0, task.prompt, task.output, task.first_token_s)
        for index, task in enumerate(tasks)
    ]
    windows = weigh_all(spans)
    intervals = sample(name, kind, every_s).intervals("n", presence=lambda: count_present(windows))
    found = attribute(intervals, windows, estimate_idle_power_w(intervals, windows))
    judged = [
        Judged(span.end_s, span.length_s, energy_j, task.energy_j)
        for span, task in zip(spans, tasks, strict=True)
        if not task.was_ended and (energy_j := found[span.pod_uid].energy_j) is not None
    ]
    assert len(judged) > 0.95 * sum(not task.was_ended for task in tasks)
    return judged


def find_bias(judged: Iterable[Judged]) -> float:
    pairs = [(one.found_j, one.true_j) for one in judged]
    return sum(found_j for found_j, _ in pairs) / sum(true_j for _, true_j in pairs) - 1


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize(("kind", "every_s"), [("counter", 1.0), ("counter", 15.0), ("gauge", 5.0), ("gauge", 15.0)])
def test_energy_is_attributed_to_within_a_few_percent(name: str, kind: str, every_s: float) -> None:
    judged = judge(name, kind, every_s)
    errors = sorted(abs(one.error) for one in judged)

    # Reading draws more power than decoding, which samples that are further apart do not show.
    looser = 1.6 if every_s > 1.0 and name == "V100, long prompts" else 1.0
    assert median(errors) < 0.05 * looser
    assert errors[int(0.9 * len(errors))] < 0.15 * looser
    assert abs(find_bias(judged)) < (0.01 if kind == "counter" else 0.02 * looser)


@pytest.mark.parametrize("name", LOADS)
def test_runs_between_two_samples_of_the_power_are_right_by_the_minute(name: str) -> None:
    minutes: dict[int, list[Judged]] = defaultdict(list)
    for one in judge(name, "gauge", 5.0):
        if one.length_s < 10.0:
            minutes[int(one.end_s // 60)].append(one)

    assert median(abs(find_bias(judged)) for judged in minutes.values()) < 0.05
