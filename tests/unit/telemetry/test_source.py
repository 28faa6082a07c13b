import asyncio
import base64
import gzip
import re
import threading
from contextlib import closing
from pathlib import Path

import pytest
import requests
from pydantic import ValidationError

from perllm.settings_file import ConfigError
from perllm.telemetry import source as module
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.source import PrometheusSource, TelemetryError, TelemetryUnreachableError
from perllm.text import hide_credentials
from unit.telemetry.prometheus_of import Answer, drip, hang, say, served

TIMEOUT_S = 0.3
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def connect(address: str, timeout_s: float = 30.0) -> PrometheusSource:
    return PrometheusSource(TelemetrySettings(url=f"http://{address}", timeout_s=timeout_s), requests.Session())


async def ask(address: str, timeout_s: float = 30.0) -> object:
    with closing(connect(address, timeout_s)) as source:
        return await source.query("up[1m]")


@pytest.mark.parametrize("password", ["secret", "se@cret", "secret%2F", "a@b@secret", "two se'cret"])
async def test_errors_do_not_tell_the_password_of_a_url(password: str) -> None:
    settings = TelemetrySettings(url=f"http://user:{password}@127.0.0.1:9")
    source = PrometheusSource(settings, requests.Session())

    with pytest.raises(TelemetryUnreachableError, match="cannot be reached") as error:
        await source.query("up[1m]")

    source.close()
    assert str(error.value).startswith("Prometheus at http://127.0.0.1:9 ")
    assert "cret" not in str(error.value)
    assert hide_credentials(f"Failed to parse: {settings.url}/api") == "Failed to parse: http://127.0.0.1:9/api"


@pytest.mark.parametrize("content", ["secret\nof two lines", "sécret", "se\x00cret"])
async def test_an_error_about_a_token_that_cannot_be_sent_names_its_file_and_does_not_tell_the_token(
    tmp_path: Path, content: str
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(content, "utf-8")
    source = PrometheusSource(TelemetrySettings(url="http://127.0.0.1:9", token_file=token_file), requests.Session())

    with closing(source), pytest.raises(TelemetryError, match="must contain a token and nothing else") as error:
        await source.query("up[1m]")

    assert str(token_file) in str(error.value)
    assert "cret" not in str(error.value).replace(str(tmp_path), "")


async def test_a_prometheus_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with served(say('{"data": {"result": []}}')) as address:
        assert await ask(address) == ()


async def test_basic_authentication_reads_its_password_for_every_request(tmp_path: Path) -> None:
    seen: list[str] = []

    password_file = tmp_path / "password"
    async with served(say('{"data": {"result": []}}'), seen) as address:
        settings = TelemetrySettings(url=f"http://{address}", username="édge", password_file=password_file)
        with closing(PrometheusSource(settings, requests.Session())) as source:
            for password in ("old", "p@ss:word"):
                password_file.write_text(f"{password}\n")
                await source.query("up[1m]")

    credentials = [re.search(r"Authorization: Basic (\S+)", request) for request in seen]
    assert [base64.b64decode(found[1]).decode() for found in credentials if found] == ["édge:old", "édge:p@ss:word"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"username": "u"}, "must be set together"),
        ({"password_file": "p"}, "must be set together"),
        ({"username": "u", "password_file": "p", "token_file": "t"}, "either a token_file, or username"),
    ],
)
def test_authentication_that_is_half_or_double_is_refused(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TelemetrySettings.model_validate(fields)


@pytest.mark.parametrize("url", ["http://user:se/cret@host", "http://user:12/cret@host", "http://u:x#@host", "http://"])
def test_a_url_that_would_be_taken_for_another_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="in user and password write / as %2F"):
        TelemetrySettings(url=url)


@pytest.mark.parametrize("url", ["http://[::1", "localhost:9090", "http://u:a/b@c"])
def test_the_url_of_a_command_has_to_be_one_as_well(url: str) -> None:
    settings = TelemetrySettings(matchers={"cluster": "a"})

    assert settings.with_url("http://p:9090") == settings.model_copy(update={"url": "http://p:9090"})
    with pytest.raises(ConfigError, match=r"^--prometheus: "):
        settings.with_url(url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            say("<html>Sign in</html>"),
            "something other than JSON, such as the page of a sign-in proxy",
        ),
        (say("nothing", "401 Unauthorized"), "refuses to answer; check telemetry.url, its path, the token"),
        (say("overloaded", "503 Service Unavailable"), "refuses to answer"),
    ],
    ids=["login page", "no token", "overload"],
)
async def test_what_is_no_prometheus_is_told_apart(answer: Answer, words: str) -> None:
    async with served(answer) as address:
        with pytest.raises(TelemetryUnreachableError, match=words):
            await ask(address)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (drip(HEAD), "did not answer in time"),
        (drip(b"HTTP/1.1 200 OK\r\nX-Header: "), "did not answer in time"),
        (drip(b""), "did not answer in time|cannot be reached"),
        (hang, "did not answer in time"),
    ],
    ids=["dripping body", "dripping header", "no HTTP", "silence"],
)
async def test_an_answer_that_takes_too_long_is_given_up_however_many_bytes_come(answer: Answer, words: str) -> None:
    async with served(answer) as address:
        async with asyncio.timeout(20.0):
            with pytest.raises(TelemetryUnreachableError, match=words):
                await ask(address, TIMEOUT_S)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            say('{"status": "error", "error": "parse error"}', "400 Bad Request"),
            "rejects the query 'up.1m.'; correct it .*parse error",
        ),
        (say('{"data": {"resultType": "scalar", "result": [1, "2"]}}'), "single value without labels"),
        (
            say('{"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]}}'),
            "must end in a range",
        ),
        (say('{"status": "success"}'), "no usable answer"),
        (say("[]"), "no usable answer"),
        (say('{"data":' + "[" * 100_000), "no usable answer|something other than JSON"),
    ],
    ids=["refusal", "scalar", "vector", "no data", "list", "nested"],
)
async def test_what_is_wrong_with_a_query_is_told_and_others_go_on(answer: Answer, words: str) -> None:
    async with served(answer) as address:
        with pytest.raises(TelemetryError, match=words):
            await ask(address)


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 10_000)
    packed = gzip.compress(b" " * 1_000_000)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    async with served(answer) as address:
        with pytest.raises(TelemetryError, match="returned too much data"):
            await ask(address)


async def test_after_an_answer_that_dripped_the_next_is_taken() -> None:
    answers = [drip(HEAD), say('{"data": {"result": []}}')]

    async def answer(writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(writer)

    async with served(answer) as address:
        with closing(connect(address, 1.0)) as source:
            with pytest.raises(TelemetryUnreachableError):
                await source.query("up[1m]")
            assert await source.query("up[1m]") == ()


async def test_closing_breaks_off_what_hangs_and_leaves_no_thread() -> None:
    async with served(hang) as address:
        source = connect(address)
        asked = asyncio.ensure_future(source.query("up[1m]"))
        await asyncio.sleep(0.2)
        source.close()
        with pytest.raises(TelemetryUnreachableError):
            await asyncio.wait_for(asked, 5)
    threads = [one for one in threading.enumerate() if one.name.startswith("telemetry")]
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
