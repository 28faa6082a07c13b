import csv
import json
from io import StringIO

import pytest

from perllm.api.task_status import EnergyQuality
from perllm.reporting.bill import Bill, read_bill
from perllm.reporting.bill_formats import format_csv, format_json, format_table
from unit.reporting.past_of import ScrapedMetrics

KWH = 3.6e6


def metered() -> ScrapedMetrics:
    """Two namespaces, one label, and a node that used 2 kWh."""
    metrics = ScrapedMetrics()
    for by, payer, energy_j, transmission_j, met, missed in (
        ("namespace", "chat", 1.0 * KWH, 40.0, 8, 1),
        ("namespace", "batch", 0.5 * KWH, 2.0, 1, 0),
        ("label", "red", 1.5 * KWH, 42.0, 9, 1),
    ):
        metrics.count("perllm_bill_joules", energy_j, by=by, payer=payer, part="inference")
        metrics.count("perllm_bill_joules", transmission_j, by=by, payer=payer, part="transmission")
        metrics.count("perllm_bill_tasks", met + missed, by=by, payer=payer, phase="Succeeded")
        metrics.count("perllm_bill_tasks", 1, by=by, payer=payer, phase="Deleted")
        metrics.count("perllm_bill_deadlines", met, by=by, payer=payer, met="true")
        metrics.count("perllm_bill_deadlines", missed, by=by, payer=payer, met="false")
        metrics.count("perllm_bill_tokens", 100 * met, by=by, payer=payer, kind="prompt")
        metrics.count("perllm_bill_tokens", 10 * met, by=by, payer=payer, kind="output")
        metrics.count("perllm_bill_measurements", met, by=by, payer=payer, quality="measured")
        metrics.count("perllm_bill_measurements", missed, by=by, payer=payer, quality="missing")
    metrics.count("perllm_node_energy_joules", 2 * KWH, node="n")
    for part, share in (("tasks", 1.5), ("foreign", 0.1), ("idle", 0.3)):
        metrics.count("perllm_node_energy_part_joules", share * KWH, node="n", part=part)
    return metrics


async def bill(by: str = "namespace") -> Bill:
    return await read_bill(metered().past(), by)


async def test_each_payer_has_its_tasks_tokens_deadlines_and_energy() -> None:
    chat, batch = (await bill()).lines

    assert (chat.payer, chat.tasks, chat.met, chat.judged) == ("chat", 10, 8, 9)
    assert (chat.prompt_tokens, chat.output_tokens) == (800, 80)
    assert (chat.inference_j, chat.transmission_j) == (KWH, 40)
    assert (chat.share(EnergyQuality.MEASURED), chat.share(EnergyQuality.COARSE)) == (8 / 9, 0)
    assert (batch.payer, batch.inference_j) == ("batch", KWH / 2)


async def test_payers_are_values_of_the_label_if_wanted() -> None:
    assert [(line.payer, line.tasks) for line in (await bill("label")).lines] == [("red", 11)]


async def test_payers_foreign_idle_and_unattributed_energy_are_what_was_measured() -> None:
    found = await bill()
    payers_j = sum(line.inference_j for line in found.lines)

    assert (found.foreign_j, found.idle_j, found.measured_j) == pytest.approx((0.1 * KWH, 0.3 * KWH, 2 * KWH))
    assert found.unattributed_j == pytest.approx(0.1 * KWH)
    assert payers_j + found.foreign_j + found.idle_j + found.unattributed_j == pytest.approx(found.measured_j)


async def test_the_table_shows_payers_then_the_rest_then_the_measured_energy() -> None:
    header, *rows = (line.split() for line in format_table(await bill()).splitlines())

    assert header[:4] == ["namespace", "tasks", "in", "time"]
    assert rows[0] == ["chat", "10", "8", "88.9%", "800", "80", "3,600,000", "1.0000", "40", "89%", "0%", "11%"]
    assert [row[0] for row in rows] == ["chat", "batch", "FOREIGN", "IDLE", "UNATTRIBUTED", "MEASURED"]
    assert rows[-1][1:] == ["7,200,000", "2.0000"]


async def test_csv_has_one_row_for_each_payer_and_each_rest() -> None:
    rows = list(csv.DictReader(StringIO(format_csv(await bill()))))

    assert [(row["kind"], row["name"]) for row in rows[:3]] == [
        ("namespace", "chat"),
        ("namespace", "batch"),
        ("rest", "foreign"),
    ]
    assert (rows[0]["joules"], rows[0]["measured_share"]) == ("3600000.0", str(8 / 9))
    assert (rows[-1]["name"], rows[-1]["kwh"], rows[-1]["tasks"]) == ("measured", "2.0", "")


async def test_json_says_the_same_as_the_table() -> None:
    document = json.loads(format_json(await bill()))

    assert (document["by"], document["end"] - document["start"]) == ("namespace", 3600)
    assert document["payers"][0]["payer"] == "chat"
    assert document["payers"][0]["kwh"] == 1
    assert document["rest"]["measured"] == {"joules": 2 * KWH, "kwh": 2}


async def test_unknown_shares_are_not_zero() -> None:
    metrics = ScrapedMetrics()
    metrics.count("perllm_bill_joules", 5, by="namespace", payer="new", part="inference")
    found = await read_bill(metrics.past(), "namespace")

    assert format_table(found).splitlines()[1].split() == [
        "new",
        "0",
        "0",
        "-",
        "0",
        "0",
        "5",
        "0.0000",
        "0",
        "-",
        "-",
        "-",
    ]
    assert json.loads(format_json(found))["payers"][0]["met_share"] is None
