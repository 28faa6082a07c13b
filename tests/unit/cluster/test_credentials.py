from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kubernetes.config import incluster_config, kube_config

from perllm.cluster.credentials import CredentialsError, load_credentials, load_namespace


def write_kubeconfig(directory: Path, *, cluster: dict[str, object], user: dict[str, object]) -> Path:
    file = directory / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "one",
                "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return file


def test_a_token_becomes_a_header(tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path, cluster={"server": "http://localhost:8001/"}, user={"token": "secret"})
    credentials = load_credentials(file)
    assert credentials.server == "http://localhost:8001"
    assert credentials.headers() == {"Authorization": "Bearer secret"}
    assert credentials.ssl_context() is None


def test_a_pod_is_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, content in (("SERVICE_TOKEN_FILENAME", "secret"), ("SERVICE_CERT_FILENAME", "certificate")):
        (tmp_path / setting).write_text(content)
        monkeypatch.setattr(incluster_config, setting, str(tmp_path / setting))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere:1")  # is for what is outside of the cluster
    credentials = load_credentials()
    assert credentials.proxy is None
    assert credentials.server == "https://10.0.0.1:443"
    assert credentials.headers() == {"Authorization": "Bearer secret"}


def test_without_a_token_there_is_no_header(tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path, cluster={"server": "http://localhost:8001"}, user={})
    assert load_credentials(file).headers() == {}


def test_the_server_is_always_verified(tmp_path: Path) -> None:
    cluster: dict[str, object] = {"server": "https://localhost:6443", "insecure-skip-tls-verify": True}
    with pytest.raises(CredentialsError, match="add certificate-authority-data instead"):
        load_credentials(write_kubeconfig(tmp_path, cluster=cluster, user={}))


def test_the_way_to_the_server_is_that_of_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere:1")
    cluster: dict[str, object] = {"server": "https://10.0.0.1:6443"}
    plain = load_credentials(write_kubeconfig(tmp_path, cluster=cluster, user={}))
    assert (plain.proxy, plain.server_name) == ("http://elsewhere:1", None)

    cluster |= {"proxy-url": "http://bastion:3128", "tls-server-name": "kube.example.com"}
    there = load_credentials(write_kubeconfig(tmp_path, cluster=cluster, user={}))
    assert (there.proxy, there.server_name) == ("http://bastion:3128", "kube.example.com")

    socks = {**cluster, "proxy-url": "socks5://user:secret@bastion:1080"}
    with pytest.raises(CredentialsError, match="socks5://bastion:1080, is not that of an HTTP proxy"):
        load_credentials(write_kubeconfig(tmp_path, cluster=socks, user={}))


BROKEN_CERTIFICATE = """\
current-context: one
contexts: [{name: one, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "https://localhost:6443", certificate-authority-data: abc}}]
"""


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"apiVersion: v1", b"just text", b"\xff\xfe", BROKEN_CERTIFICATE.encode()]
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        CredentialsError, match=r"(?s)no Kubernetes credentials in .*kubeconfig.*Pass --kubeconfig FILE"
    ):
        load_credentials(file)


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path, cluster={"server": "http://localhost:8001"}, user={})
    with pytest.raises(CredentialsError, match="other"):
        load_credentials(file, context="other")


def test_the_namespace_is_that_of_the_context_if_it_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_kubeconfig(tmp_path, cluster={"server": "http://localhost:8001"}, user={})
    content = yaml.safe_load(file.read_text())
    content["contexts"].append({"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "team"}})
    file.write_text(yaml.safe_dump(content))

    assert load_namespace(file) is None
    assert load_namespace(file, "two") == "team"
    with pytest.raises(CredentialsError, match="has no context 'three'"):
        load_namespace(file, "three")
    with pytest.raises(CredentialsError):
        load_namespace(tmp_path / "none")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert load_namespace() is None


@pytest.mark.parametrize("load", [load_credentials, load_namespace])
def test_a_line_of_a_kubeconfig_that_is_no_yaml_is_named_and_not_quoted(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("users:\n- name: u\n  user:\n    token: secret: more\n")
    with pytest.raises(CredentialsError, match="line 4") as caught:
        load(file)
    assert "secret" not in str(caught.value)


def test_a_message_about_a_kubeconfig_has_no_secret_of_it(tmp_path: Path) -> None:
    user = {"token": "secret", "auth-provider": None}
    file = write_kubeconfig(tmp_path, cluster={"server": "http://localhost:8001"}, user=user)
    with pytest.raises(CredentialsError, match="Expected key auth-provider") as caught:
        load_credentials(file)
    assert "secret" not in str(caught.value)


def write_context(file: Path, name: str, *, current: str | None) -> None:
    """Write a kubeconfig with one context, of a cluster and a namespace of its name."""
    content: dict[str, object] = {
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": name}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}"}}],
        "users": [{"name": name, "user": {}}],
    }
    file.write_text(yaml.safe_dump(content if current is None else {**content, "current-context": current}))


@pytest.mark.parametrize("others", ["dev", "", None])
def test_of_several_kubeconfigs_the_first_current_context_counts_as_for_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str | None
) -> None:
    write_context(tmp_path / "a", "home", current=others and "home")
    write_context(tmp_path / "b", "prod", current="prod" if others is None else "home")
    write_context(tmp_path / "c", "dev", current=others)
    files = (tmp_path / name for name in ("missing", "a", "b", "c"))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", ":".join(map(str, files)))
    expected = "prod" if others is None else "home"
    assert load_credentials().server == f"http://{expected}"
    assert load_namespace() == expected
    assert load_credentials(context="dev").server == "http://dev"
    assert load_namespace(context="dev") == "dev"


def test_a_context_can_be_named_where_none_is_the_current_one(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    write_context(file, "one", current=None)
    assert load_credentials(file, "one").server == "http://one"
    assert load_namespace(file, "one") == "one"
    with pytest.raises(CredentialsError, match="no current context: pass --context"):
        load_namespace(file)
