import pytest
import requests

from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.source import PrometheusSource, TelemetryUnreachableError


async def test_errors_do_not_tell_the_password_of_a_url() -> None:
    source = PrometheusSource(TelemetrySettings(url="http://user:secret@127.0.0.1:9"), requests.Session())

    with pytest.raises(TelemetryUnreachableError, match="cannot be reached") as error:
        await source.query("up[1m]")

    source.close()
    assert str(error.value).startswith("Prometheus at http://127.0.0.1:9 ")
    assert "secret" not in str(error.value)
