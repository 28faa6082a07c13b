from pathlib import Path

import pytest

from perllm.agent.addresses import ServerAddress, read_addresses
from perllm.agent.config import AgentConfig, ModelServerSettings, load_agent_config
from perllm.settings_file import ConfigError


def test_servers_are_configured_with_keys_from_files(tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "agent.yaml"
    key.write_text("sk-secret\n")
    file.write_text(f"servers: [{{url: 'http://127.0.0.1:8000/v1/', api_key_file: {key}, slots: 8}}]\n")

    config = load_agent_config(file)

    assert read_addresses(config.servers) == (ServerAddress("http://127.0.0.1:8000/v1", "sk-secret", 8),)
    assert "sk-secret" not in f"{config} {read_addresses(config.servers)}"


def test_everything_has_a_default() -> None:
    assert load_agent_config(None) == AgentConfig()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a/v1", "http://a:8000", "http://a:8000/", "http://u:p@a/v1", "http://a/v1?key=x"]
)
def test_an_address_that_no_request_could_be_sent_to_is_an_error(tmp_path: Path, url: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(f"servers: [{{url: '{url}'}}]\n")
    with pytest.raises(ConfigError, match=r"servers\.0\.url"):
        load_agent_config(file)


@pytest.mark.parametrize("content", [b"sk\nsecret", "schlüssel".encode(), b"\xff"])
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_show_it(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(ConfigError, match="the key of http://a/v1") as caught:
        read_addresses([ModelServerSettings(url="http://a/v1", api_key_file=key)])
    assert "sk" not in str(caught.value).replace(str(key), "")


def test_a_missing_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_addresses([ModelServerSettings(url="http://a/v1", api_key_file=tmp_path / "none")])
