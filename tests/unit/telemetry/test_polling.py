"""Generated answers of a real server through everything: connection, parsing, figures."""

import asyncio
import json
import time
from random import Random

import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from perllm.guard import Guard
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import Quality
from perllm.telemetry.source import PrometheusSource
from unit.telemetry.prometheus_of import say, served

NOW_S = time.time()
GOOD = {"metric": {"node": "a", "gpu": "0"}, "values": [[NOW_S - 5, "100"], [NOW_S, "200"]]}

_VALUES = st.sampled_from(["1", "-1", "NaN", "+Inf", "1e300", "text", 5, None, [], {}])
_TIMES = st.sampled_from([NOW_S - 5, NOW_S, NOW_S + 1e6, 0, -1, 1e300, "1", None, []])
_SERIES = st.fixed_dictionaries(
    {},
    optional={
        "metric": st.dictionaries(
            st.sampled_from(["node", "gpu", "pod"]), st.sampled_from(["a", "b", "\x1b[2J", 1, None])
        ),
        "values": st.lists(st.lists(st.one_of(_TIMES, _VALUES), max_size=3), max_size=4) | _VALUES,
        "histograms": st.just([]),
    },
)
RESULTS = st.lists(_SERIES | _VALUES, max_size=4)


@settings(max_examples=25, deadline=None)
@given(odd=RESULTS)
def test_whatever_else_is_answered_a_good_series_is_read(odd: list[object]) -> None:
    others = [one for one in odd if not (isinstance(one, dict) and one.get("metric", {}).get("node") == "a")]
    telemetry, faults = asyncio.run(_poll({"data": {"result": [*others, GOOD]}}))
    assert telemetry.healthy
    assert faults == []
    assert telemetry.snapshot.of("a").power_w.fresh_value == 200
    assert telemetry.energy.covers("a", NOW_S - 1)


@settings(max_examples=25, deadline=None)
@given(
    answer=st.recursive(
        _VALUES | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "result", "status"]), inner),
    )
)
def test_an_answer_of_any_other_form_makes_figures_missing(answer: object) -> None:
    telemetry, faults = asyncio.run(_poll(answer))
    assert faults == []
    assert telemetry.snapshot.of("a").power_w.quality is Quality.MISSING


async def _poll(answer: object) -> tuple[Telemetry, list[str]]:
    """Poll once a server that answers everything so; return the telemetry and what nobody foresaw."""
    faults: list[str] = []
    async with served(say(json.dumps(answer))) as address:
        config = TelemetrySettings(url=f"http://{address}", timeout_s=30)
        source = PrometheusSource(config, requests.Session())
        telemetry = Telemetry(
            source,
            config,
            lambda: {"a": [], "b": []},
            lambda: NOW_S,
            TelemetryMetrics(CollectorRegistry()),
            guard=Guard(faults.append, Random(0)),
            rng=Random(0),
        )
        await telemetry.poll()
        source.close()
    return telemetry, faults
