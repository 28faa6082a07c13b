import asyncio
import logging
from collections.abc import Sequence
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from perllm.guard import Guard
from perllm.telemetry.feeds import list_feeds
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.readings import Readings
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import NodeFigures, Quality
from perllm.telemetry.source import TelemetryError, TelemetryUnreachableError

pytestmark = pytest.mark.looptime


class FakeMetricSource:
    """One node whose GPU draws 100 W; can be told to fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.odd: list[Series] = []
        self.broken_metric = "none"
        self.breakage = TelemetryError("bad query")

    async def query(self, promql: str) -> Sequence[Series]:
        self.asked.append(promql)
        if self.error is not None:
            raise self.error
        if self.broken_metric in promql:
            raise self.breakage
        times_s = [float(time_s) for time_s in range(int(asyncio.get_running_loop().time()) + 1)]
        if "ENERGY" in promql:
            return [*self.odd, self._series((time_s, 100_000.0 * time_s) for time_s in times_s)]
        if "POWER" in promql:
            return [self._series((time_s, 100.0) for time_s in times_s[-3:]), Series({"instance": "other"}, ((1, 1),))]
        return []

    @staticmethod
    def _series(samples: object) -> Series:
        return Series({"Hostname": "n", "UUID": "GPU-1"}, tuple(samples))  # type: ignore[arg-type]


class Setup:
    def __init__(self) -> None:
        self.source = FakeMetricSource()
        self.registry = CollectorRegistry()
        self.faults: list[str] = []
        self.ahead_s = 0.0
        self.nodes: dict[str, list[str]] = {"n": ["10.0.0.1"]}
        self.settings = TelemetrySettings(interval_s=5, max_backoff_s=30, stale_after_s=20)
        self.telemetry = Telemetry(
            self.source,
            self.settings,
            lambda: self.nodes,
            lambda: asyncio.get_running_loop().time() + self.ahead_s,
            TelemetryMetrics(self.registry),
            guard=Guard(self.faults.append, Random(0)),
            rng=Random(0),
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"perllm_telemetry_{name}", labels)


@pytest.fixture
async def setup() -> Setup:
    return Setup()


async def run_for(telemetry: Telemetry, length_s: float) -> None:
    try:
        async with asyncio.timeout(length_s):
            await telemetry.run()
    except TimeoutError:
        pass


async def test_poll_keeps_figures_and_energy(setup: Setup) -> None:
    await run_for(setup.telemetry, 11)

    assert setup.telemetry.healthy
    assert setup.telemetry.snapshot.of("n").power_w.fresh_value == 100
    assert setup.telemetry.snapshot.of("unknown").power_w.quality is Quality.MISSING
    assert setup.telemetry.energy.intervals("n").energy_j.tolist() == [100.0] * 10


async def test_first_poll_looks_far_back_and_later_ones_at_what_is_new_or_late(setup: Setup) -> None:
    await run_for(setup.telemetry, 21)

    energy = [query for query in setup.source.asked if "ENERGY" in query]
    windows = ("900s", "10s", "25s", "10s", "25s")
    assert energy == [f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{window}]" for window in windows]


async def test_after_a_clock_was_set_back_what_the_wrong_time_made_too_old_is_read_again(setup: Setup) -> None:
    await run_for(setup.telemetry, 21)
    setup.ahead_s = 3600.0
    await run_for(setup.telemetry, 6)
    assert setup.telemetry.energy.intervals("n").energy_j.tolist() == []
    setup.ahead_s = 0.0
    setup.source.asked.clear()
    await run_for(setup.telemetry, 6)

    energy = [query for query in setup.source.asked if "ENERGY" in query]
    assert energy == [f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{window}]" for window in ("900s", "10s")]


async def test_while_prometheus_is_away_figures_become_stale(setup: Setup) -> None:
    await run_for(setup.telemetry, 11)
    setup.source.error = TelemetryUnreachableError("gone")
    await run_for(setup.telemetry, 60)

    assert not setup.telemetry.healthy
    assert setup.telemetry.snapshot.of("n").power_w.quality is Quality.STALE
    assert setup.telemetry.snapshot.of("n").power_w.value == 100
    assert setup.metric("up") == 0
    assert setup.metric("nodes", figure="power", quality="stale") == 1
    assert setup.metric("age_seconds") == pytest.approx(61, abs=1)


async def test_failing_server_is_asked_less_and_less_often(setup: Setup) -> None:
    setup.source.error = TelemetryUnreachableError("gone")

    await run_for(setup.telemetry, 300)

    # After 5, 10, 20 s and then every 30 s, or half of it; two queries each: the others would not be answered either.
    assert len(setup.source.asked) / 2 == setup.telemetry.failures == setup.metric("failures_total")
    assert 3 + 250 / 35 <= setup.telemetry.failures <= 4 + 290 / 15


async def test_outage_is_one_line_and_recovery_another(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "perllm.telemetry")
    setup.source.error = TelemetryUnreachableError("check the url")
    await run_for(setup.telemetry, 60)
    setup.source.error = None
    await run_for(setup.telemetry, 20)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "check the url" in caplog.messages[0]
    assert setup.telemetry.healthy
    assert setup.metric("up") == 1


async def test_energy_missed_during_an_outage_is_fetched_afterwards(setup: Setup) -> None:
    await run_for(setup.telemetry, 6)
    setup.source.error = TelemetryUnreachableError("gone")
    await run_for(setup.telemetry, 100)
    setup.source.error = None
    await run_for(setup.telemetry, 1)

    assert setup.telemetry.energy.intervals("n").energy_j.tolist() == [100.0] * 106
    assert setup.source.asked[-len(list_feeds(setup.settings))] == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[121s]"


@pytest.mark.parametrize("error", [TelemetryError("bad query"), TelemetryUnreachableError("too slow")])
async def test_one_broken_query_does_not_keep_the_others_from_being_read(setup: Setup, error: TelemetryError) -> None:
    setup.source.broken_metric, setup.source.breakage = "ENERGY", error

    await run_for(setup.telemetry, 1)

    assert not setup.telemetry.healthy
    assert setup.telemetry.snapshot.of("n").power_w.fresh_value == 100


@pytest.mark.parametrize("error", [TelemetryError("bad query"), TelemetryUnreachableError("too slow")])
async def test_one_broken_query_is_made_less_and_less_often_and_the_others_as_often_as_before(
    setup: Setup, error: TelemetryError
) -> None:
    setup.source.broken_metric, setup.source.breakage = "ENERGY", error
    polling = asyncio.create_task(setup.telemetry.run())
    await asyncio.sleep(1)
    for _ in range(300):
        await asyncio.sleep(1)
        assert setup.telemetry.snapshot.of("n").power_w.quality is Quality.FRESH
        assert setup.metric("up") == 0

    asked = ["ENERGY" in query for query in setup.source.asked]
    assert 3 + 250 / 35 <= asked.count(True) <= 4 + 290 / 15
    setup.source.broken_metric = "none"
    await asyncio.sleep(35)
    polling.cancel()
    assert setup.telemetry.healthy


async def test_a_series_that_cannot_be_used_spoils_only_itself_and_is_told_once(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "perllm.telemetry")
    setup.source.odd = [Series({"Hostname": "n", "UUID": "GPU-2"}, (), "it has no list of samples")]
    await run_for(setup.telemetry, 31)

    assert setup.telemetry.healthy
    assert setup.telemetry.energy.intervals("n").energy_j.tolist() == [100.0] * 30
    assert setup.metric("unusable_series", metric="energy") == 1
    setup.source.odd = []
    await run_for(setup.telemetry, 6)

    assert caplog.messages == [
        "1 series of energy cannot be used, the others are not affected; for example {Hostname=n, UUID=GPU-2}: "
        "it has no list of samples",
        "all series of energy can be used again",
    ]
    assert setup.metric("unusable_series", metric="energy") == 0


async def test_samples_of_the_future_make_nothing_fresh(setup: Setup) -> None:
    await run_for(setup.telemetry, 6)
    setup.source.odd = [Series({"Hostname": "n", "UUID": "GPU-2"}, ((1.0, 5.0), (1e9, 5.0)))]
    await run_for(setup.telemetry, 6)

    assert setup.metric("unusable_series", metric="energy") == 1
    assert not setup.telemetry.energy.covers("n", 1e8)


async def test_a_clock_that_is_ahead_of_that_of_prometheus_is_named(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.ahead_s = 300.0
    await run_for(setup.telemetry, 31)

    assert setup.metric("unusable_series", metric="power") == 1
    assert "the newest samples are 300 s old" in caplog.text
    assert "compare the clocks" in caplog.text


async def test_an_error_that_nobody_foresaw_ends_nothing(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.source.error = RuntimeError("odd")
    await run_for(setup.telemetry, 300)

    assert setup.metric("up") == 0
    assert set(setup.faults) == {"query"}
    assert sum(record.exc_info is not None for record in caplog.records) == len(list_feeds(setup.settings))
    setup.source.error = None
    await run_for(setup.telemetry, 31)
    assert setup.metric("up") == 1


async def test_figures_of_one_node_that_cannot_be_worked_out_spoil_no_other(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = Readings.figures

    def fail(self: Readings, node: str, now_s: float) -> NodeFigures:
        if node == "odd":
            raise ZeroDivisionError
        return figures(self, node, now_s)

    monkeypatch.setattr(Readings, "figures", fail)
    setup.nodes["odd"] = []
    await run_for(setup.telemetry, 6)

    assert setup.telemetry.snapshot.of("n").power_w.fresh_value == 100
    assert setup.telemetry.snapshot.of("odd").power_w.quality is Quality.MISSING


async def test_series_of_unknown_nodes_are_counted(setup: Setup) -> None:
    await run_for(setup.telemetry, 1)

    assert setup.metric("unmapped_series", metric="power") == 1
    assert setup.metric("unmapped_series", metric="energy") == 0
