import pytest
from prometheus_client import CollectorRegistry

from perllm.api.task_status import TaskStatus
from perllm.controller.end_metrics import EndMetrics, name_promise
from perllm.controller.lifecycle import advance
from unit.controller.samples import failed, make_task, succeeded


@pytest.mark.parametrize(
    ("chance", "named"),
    [
        (0.0, "0-50"),
        (0.5, "50-80"),
        (0.899, "80-90"),
        (0.9, "90-95"),
        (0.95, "95-99"),
        (0.99, "99-100"),
        (1.0, "99-100"),
    ],
)
def test_chances_are_promised_in_ranges(chance: float, named: str) -> None:
    assert name_promise(chance) == named


def test_missed_deadlines_have_a_reason() -> None:
    registry = CollectorRegistry()
    endings = EndMetrics(registry)
    for pod in (succeeded(), succeeded(finished_s=1070.0), failed()):
        endings.note_end(advance(make_task(), TaskStatus(), [pod], 1080).status)

    missed = {
        (one.labels["phase"], one.labels["reason"]): one.value
        for family in registry.collect()
        for one in family.samples
        if one.name == "perllm_deadlines_missed_total"
    }
    assert missed == {("Succeeded", "Late"): 1, ("Failed", "PodFailed"): 1}
