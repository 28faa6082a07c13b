from rich.console import Console

from perllm_lab.report.results import FleetEnergy, RequestResult
from perllm_lab.report.tables import compare
from perllm_lab.workload.requests import Request


def test_a_scheduler_that_completed_nothing_has_dashes_for_what_there_is_none_of() -> None:
    request = Request("a", "chat", 0.0, 10, 10, 0, 25.0)
    console = Console(width=100, record=True, quiet=False)
    console.print(compare({"ours": [RequestResult(request, None, None, None)]}, {"ours": FleetEnergy(1.0, 0.0, 1.0)}))
    assert "ours all 1 0.0% 0.0% - - - -" in " ".join(console.export_text().split())
