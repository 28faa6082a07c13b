import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from perllm.cluster.client import ApiError
from perllm.reporting.prometheus import (
    PrometheusAccess,
    ProxiedPrometheus,
    find_proxy_path,
    open_prometheus,
    read_telemetry,
)
from perllm.settings_file import ConfigError
from perllm.telemetry.source import PrometheusSource, TelemetryError
from unit.cluster.fake_api import FakeApiServer
from unit.telemetry.prometheus_of import say, served

CONFIG_MAPS = "/api/v1/namespaces/perllm-system/configmaps"
RELABELLED = {"labels": {"app.kubernetes.io/part-of": "platform"}}
"""As commonLabels of the chart may say; without the chart there are none."""


def install(api: Any, name: str, text: str) -> None:
    api.store(f"{CONFIG_MAPS}/{name}", metadata=RELABELLED, data={"perllm.yaml": text})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (
            "http://prometheus-operated.monitoring.svc:9090",
            "/api/v1/namespaces/monitoring/services/http:prometheus-operated:9090/proxy",
        ),
        (
            "https://thanos.obs.svc.cluster.local/query/",
            "/api/v1/namespaces/obs/services/https:thanos:443/proxy/query",
        ),
        ("http://prometheus.example.com:9090", None),
        ("http://10.0.0.7:9090", None),
    ],
)
def test_services_of_the_cluster_are_reached_through_the_api_server(url: str, path: str | None) -> None:
    assert find_proxy_path(url) == path


async def test_the_configuration_is_that_of_the_installation() -> None:
    api: Any = FakeApiServer()
    install(api, "perllm", yaml.safe_dump({"telemetry": {"url": "http://p.m.svc:9090", "matchers": {"cluster": "a"}}}))
    api.store(f"{CONFIG_MAPS}/other", metadata=RELABELLED, data={"dashboard.json": "{}"})

    telemetry = await read_telemetry(api, "perllm-system")

    assert (telemetry.url, telemetry.matchers) == ("http://p.m.svc:9090", {"cluster": "a"})


async def test_no_or_several_or_unreadable_configurations_are_explained() -> None:
    api: Any = FakeApiServer()
    with pytest.raises(ConfigError, match=r"no config maps .* pass --namespace, --config, or --prometheus"):
        await read_telemetry(api, "perllm-system")
    install(api, "a", "telemetry: {colour: red}")
    with pytest.raises(ConfigError, match="not of this version: pass --prometheus"):
        await read_telemetry(api, "perllm-system")
    install(api, "a", "telemetry: {url: 2026-02-30}")
    with pytest.raises(
        ConfigError, match=r"perllm-system cannot be read \(day is out of range .*\): pass --prometheus"
    ):
        await read_telemetry(api, "perllm-system")
    install(api, "b", "")
    with pytest.raises(ConfigError, match="2 config maps"):
        await read_telemetry(api, "perllm-system")
    api.fail("GET", ApiError(403, "Forbidden", "no"))
    with pytest.raises(ConfigError, match=r"cannot be read \(403 Forbidden: no\)"):
        await read_telemetry(api, "perllm-system")


async def test_answers_through_the_proxy_are_those_of_prometheus() -> None:
    api: Any = FakeApiServer()
    series = {"metric": {"node": "n"}, "values": [[1.0, "2"], [2.0, "3"]]}
    path = "/proxy/api/v1/query_range"
    api.store(path, data={"result": [series]})

    (found,) = await ProxiedPrometheus(api, "/proxy", print).query_range("up", 1, 2, 1)

    assert (found.labels, found.samples) == ({"node": "n"}, ((1.0, 2.0), (2.0, 3.0)))
    assert api.calls[-1] == ("GET", path, {"query": "up", "start": "1", "end": "2", "step": "1"})
    api.store(path, data={"result": None})
    with pytest.raises(TelemetryError):
        await ProxiedPrometheus(api, "/proxy", print).query_range("up", 1, 2, 1)


PARTIAL = {"status": "success", "warnings": ["No StoreAPIs\x1b[31m matched"], "isPartial": True, "data": {"result": []}}


async def test_an_answer_that_may_lack_series_is_said_to(tmp_path: Path) -> None:
    api: Any = FakeApiServer()
    api.store("/proxy/api/v1/query_range", **PARTIAL)
    proxied: list[str] = []
    await ProxiedPrometheus(api, "/proxy", proxied.append).query_range("up", 1, 2, 1)
    direct: list[str] = []
    async with (
        served(say(json.dumps(PARTIAL))) as address,
        open_prometheus(PrometheusAccess(url=f"http://{address}"), direct.append) as (source, _),
    ):
        await source.query_range("up", 1, 2, 1)

    assert proxied == direct == ["No StoreAPIs matched", "the answer is partial"]


async def test_a_url_or_a_file_is_preferred_to_the_configuration_in_the_cluster(tmp_path: Path) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text("telemetry: {url: 'http://p.m.svc:9090', matchers: {cluster: a}}")

    access = PrometheusAccess(config_file=file, url="http://127.0.0.1:9")
    async with open_prometheus(access, print) as (source, settings):
        assert isinstance(source, PrometheusSource)
        assert settings.matchers == {"cluster": "a"}
        with pytest.raises(TelemetryError, match=r"Prometheus at http://127\.0\.0\.1:9 cannot be reached"):
            await source.query_range("up", 1, 2, 1)
