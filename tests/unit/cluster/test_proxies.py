import pytest

from perllm.cluster.proxies import find_proxy

PROXY = "http://user:key@proxy.example.com:3128"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("server", "excluded", "is_asked"),
    [
        ("https://kube.example.com:6443", "", True),
        ("https://kube.example.com:6443", ".example.org,10.0.0.0/8", True),
        ("https://kube.example.com:6443", "other, kube.example.com", False),
        ("https://kube.example.com:6443", ".example.com", False),
        ("https://kube.example.com:6443", "*", False),
        ("https://10.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "11.0.0.0/8,nonsense/99", True),
        ("https://[fd00::7]:6443", "fd00::/8", False),
        ("https://127.0.0.1:6443", "", False),
        ("https://[::1]:6443", "", False),
        ("https://localhost:6443", "", False),
        ("http://kube.example.com:8001", "", False),
    ],
)
def test_a_proxy_of_the_environment_is_asked_where_kubectl_would(
    monkeypatch: pytest.MonkeyPatch, server: str, excluded: str, is_asked: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", excluded)
    assert find_proxy(server) == (PROXY if is_asked else None)


def test_without_one_in_the_environment_there_is_no_proxy() -> None:
    assert find_proxy("https://kube.example.com") is None


@pytest.mark.parametrize(("value", "url"), [("proxy:3128", "http://proxy:3128"), ("socks5://proxy:1080", None)])
def test_a_proxy_is_one_of_http(monkeypatch: pytest.MonkeyPatch, value: str, url: str | None) -> None:
    monkeypatch.setenv("https_proxy", value)
    assert find_proxy("https://kube.example.com") == url
