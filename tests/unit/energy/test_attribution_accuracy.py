"""How true the attribution is on nodes that prefill one task at a time and decode the others together."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import pytest

from perllm.energy.attribution import attribute
from perllm.energy.spans import Span
from unit.energy.simulated_node import LOADS, measure, run, sample


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
    found = attribute(*measure(spans, sample(name, kind, every_s)))
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

    # Samples of the power say less of how much more reading draws than decoding.
    assert median(errors) < (0.02 if kind == "counter" else 0.06)
    assert errors[int(0.9 * len(errors))] < (0.04 if kind == "counter" else 0.12)
    assert abs(find_bias(judged)) < (0.01 if kind == "counter" else 0.03 if name == "V100, long prompts" else 0.02)


@pytest.mark.parametrize("name", LOADS)
def test_runs_between_two_samples_of_the_power_are_right_by_the_minute(name: str) -> None:
    minutes: dict[int, list[Judged]] = defaultdict(list)
    for one in judge(name, "gauge", 5.0):
        if one.length_s < 10.0:
            minutes[int(one.end_s // 60)].append(one)

    assert median(abs(find_bias(judged)) for judged in minutes.values()) < 0.05
