import base64
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from perllm_lab.kubernetes.certificates import Authority, Kubeconfig, write_secret
from perllm_lab.kubernetes.components import complete_configuration
from perllm_lab.kubernetes.prometheus import ScrapeTarget, render_configuration


def read_subject(pem: bytes, attribute: x509.ObjectIdentifier) -> list[str | bytes]:
    certificate = x509.load_pem_x509_certificate(pem)
    return [value.value for value in certificate.subject.get_attributes_for_oid(attribute)]


def test_kubeconfig_names_the_user_in_a_certificate_of_the_authority() -> None:
    authority = Authority()
    content = Kubeconfig.issue("https://127.0.0.1:6443", authority, "ada", "system:masters").render()
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    certificate = base64.b64decode(user["client-certificate-data"])
    assert cluster["server"] == "https://127.0.0.1:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == authority.certificate
    assert read_subject(certificate, NameOID.COMMON_NAME) == ["ada"]
    assert read_subject(certificate, NameOID.ORGANIZATION_NAME) == ["system:masters"]
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(issuer)


def test_user_without_a_group_is_only_authenticated() -> None:
    pair = Authority().issue_client("ada")
    assert read_subject(pair.certificate, NameOID.ORGANIZATION_NAME) == ["system:authenticated"]


def test_secret_is_readable_by_its_owner_only_even_if_the_file_was_open_to_all(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    file.chmod(0o644)
    write_secret(file, b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o600


def test_scheduler_configuration_is_completed_where_fields_are_missing() -> None:
    given = {"profiles": [{"schedulerName": "perllm"}], "clientConnection": {"qps": 5}}
    completed = complete_configuration(given, Path("/run/kubeconfig"))
    assert completed["kind"] == "KubeSchedulerConfiguration"
    assert completed["profiles"] == given["profiles"]
    assert completed["clientConnection"] == {"kubeconfig": "/run/kubeconfig", "qps": 5, "burst": 2000}
    assert completed["leaderElection"] == {"leaderElect": False}


def test_prometheus_labels_every_target_with_its_node() -> None:
    targets = [
        ScrapeTarget("dcgm", "127.0.0.1:1", "/metrics/edge-1", "edge-1"),
        ScrapeTarget("node", "127.0.0.1:2", "/metrics", "edge-1"),
        ScrapeTarget("dcgm", "127.0.0.1:1", "/metrics/edge-2", "edge-2"),
    ]
    content = render_configuration(targets, scrape_interval_s=0.25)
    assert set(content["global"].values()) == {"250ms"}
    assert [job["job_name"] for job in content["scrape_configs"]] == ["dcgm", "node"]
    assert content["scrape_configs"][0]["static_configs"] == [
        {"targets": ["127.0.0.1:1"], "labels": {"instance": "edge-1", "__metrics_path__": "/metrics/edge-1"}},
        {"targets": ["127.0.0.1:1"], "labels": {"instance": "edge-2", "__metrics_path__": "/metrics/edge-2"}},
    ]
