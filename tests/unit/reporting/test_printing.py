from pathlib import Path

import pytest
from click.testing import CliRunner

from perllm.reporting import printing
from perllm.reporting.command import bill
from perllm.reporting.printing import describe_gap, select_installation
from perllm.reporting.report import read_report
from perllm.settings_file import ConfigError
from unit.reporting.past_of import PERIOD, ScrapedMetrics, scrape


def installed(*namespaces: str) -> ScrapedMetrics:
    metrics = ScrapedMetrics()
    for number, namespace in enumerate(namespaces):
        metrics.put("perllm_active", scrape((4200, 1.0, 0.0)), namespace=namespace)
        metrics.count(
            "perllm_bill_tasks", 10.0**number, created_s=PERIOD.start_s + 600 + number, namespace=namespace, by="label"
        )
    return metrics


async def test_the_bill_of_one_of_several_installations_is_its_own() -> None:
    past = await select_installation(installed("blue", "green").past(), "green")

    assert (await past.read_increases("perllm_bill_tasks", by="label")).total() == 10


async def test_the_only_installation_need_not_be_named() -> None:
    past = await select_installation(installed("blue").past(), "perllm-system")

    assert (await past.read_increases("perllm_bill_tasks")).total() == 1


async def test_one_of_several_installations_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="namespaces blue, green: pass --namespace"):
        await select_installation(installed("blue", "green").past(), "perllm-system")


@pytest.mark.parametrize(("first_s", "words"), [(PERIOD.start_s - 60, ""), (PERIOD.start_s + 1800, "1970-01-12 13:1")])
async def test_a_period_longer_than_the_retention_of_prometheus_is_named(first_s: int, words: str) -> None:
    metrics = ScrapedMetrics()
    metrics.put("perllm_active", scrape((1200, 1.0, 0.0), start_s=first_s))
    past = await select_installation(metrics.past(), "perllm-system")

    assert words in describe_gap(past)
    assert bool(words) is bool(describe_gap(past))


async def test_a_report_without_any_metrics_asks_whether_there_are_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await read_report(ScrapedMetrics().past())
    monkeypatch.setattr(printing, "_ask", lambda *_: found)

    printing.write_report({}, 3600.0, tmp_path / "report.html")

    assert "is the operator scraped?" in capsys.readouterr().err
    assert (tmp_path / "report.html").exists()


def test_a_period_that_cannot_be_read_says_how_days_are_written() -> None:
    assert "in whole days 7d" in CliRunner().invoke(bill, ["--since", "1w"]).output


async def test_without_any_metrics_there_is_no_gap() -> None:
    assert describe_gap(ScrapedMetrics().past()) == ""
