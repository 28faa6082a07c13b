from pathlib import Path

from perllm_lab.report.metrics import METRICS, TIMINGS

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "results-schema.md"


def test_every_figure_is_documented() -> None:
    text = DOCUMENTATION.read_text()
    for name, metric in {**METRICS, **TIMINGS}.items():
        assert f"| `{name}` | {metric.unit} | {metric.meaning} |" in text
