import pytest

from integration.chart.helm import CHART, Helm, Object


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        (
            {"image": {}},
            "image.repository must be set: the image of PerLLM is in no public registry yet. Build it with",
        ),
        ({"replicaCount": 0}, "at '/replicaCount': minimum: got 0, want 1"),
        ({"replicaCount": "two"}, "at '/replicaCount': got string, want integer"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy'"),
        (
            {"config": {"policy": {"name": "best"}}},
            "at '/config/policy/name': value must be one of 'cs-ucb', 'cs-ucb-table'",
        ),
        (
            {"config": {"policy": {"exploration": 1}}},
            "at '/config/policy': additional properties 'exploration' not allowed",
        ),
        (
            {"config": {"telemetry": {"url": "prometheus"}}},
            "at '/config/telemetry/url': 'prometheus' does not match pattern",
        ),
        (
            {"config": {"telemetry": {"interval_s": 0}}},
            "at '/config/telemetry/interval_s': exclusiveMinimum: got 0, want 0",
        ),
        (
            {"config": {"telemetry": {"queries": {"power": "node_power_watts"}}}},
            "at '/config/telemetry/queries/power': 'node_power_watts' does not match pattern",
        ),
        ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "at '/networkPolicy/apiServer/cidrs/0'"),
        ({"networkPolicy": {"enabled": True, "apiServer": {"ports": []}}}, "networkPolicy.apiServer.ports must not"),
        ({"networkPolicy": {"enabled": True, "apiServer": {"ports": None}}}, "networkPolicy.apiServer.ports must not"),
        *(({"fullnameOverride": name}, "at '/fullnameOverride'") for name in ("perllm.prod", "1st", "PerLLM")),
        ({"nameOverride": "team/perllm"}, "at '/nameOverride'"),
        ({"namespaceOverride": "Team"}, "at '/namespaceOverride'"),
        ({"commonLabels": {"app.kubernetes.io/name": "llm"}}, "commonLabels must not hold app.kubernetes.io/name"),
        ({"podLabels": {"app.kubernetes.io/instance": "llm"}}, "podLabels must not hold app.kubernetes.io/instance"),
        *(({"agent": {"maxUnavailable": none}}, "at '/agent/maxUnavailable'") for none in (0, "0%", "half")),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "at '/podDisruptionBudget/maxUnavailable'"),
        ({"agent": {"serverNamespaces": ["a", "a"]}}, "at '/agent/serverNamespaces': items at 0 and 1 are equal"),
        ({"terminationGracePeriodSeconds": 5}, "at '/terminationGracePeriodSeconds': minimum: got 5, want 25"),
        ({"config": {"server": {"health_port": 0}}}, "config.server.health_port must not be 0: probes"),
        (
            {"config": {"server": {"health_port": 10261}}},
            "must differ: all are in the same pod, and they are [10261 10261 10259]",
        ),
        ({"config": {"mode": "shadow"}, "replicaCount": 2}, "config.mode shadow needs replicaCount 1"),
        ({"config": {"mode": "shadow"}, "agent": {"enabled": True}}, "config.mode shadow needs replicaCount 1"),
        ({"config": {"server": {"health_host": "127.0.0.1"}}}, "must be an address that kubelet and Prometheus reach"),
        (
            {"agent": {"servers": [{"url": "http://user:password@models/v1"}]}},
            "at '/agent/servers/0/url': 'http://user:password@models/v1' does not match pattern",
        ),
        ({"agent": {"servers": [{"url": "http://models:8000"}]}}, "at '/agent/servers/0/url'"),
        ({"agent": {"servers": [{"slots": 4}]}}, "at '/agent/servers/0': missing property 'url'"),
        ({"config": {"namespaces": ["a", "a"]}}, "at '/config/namespaces': items at 0 and 1 are equal"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name must be set when serviceAccount.create is false"),
        (
            {"scheduler": {"image": {"tag": "v1.38.0"}}},
            "scheduler.image.tag v1.38.0 does not fit the cluster, which is v1.37.2",
        ),
        (
            {"scheduler": {"extraArgs": ["--leader-elect=false"]}},
            "scheduler.extraArgs must not hold --leader-elect=false",
        ),
        ({"scheduler": {"image": {"tag": "v1.35.4"}}}, "may be one minor version older, but not newer"),
        (
            {"config": {"policy": {"csUcb": {"price": 1, "harmWeight": 1}, "cs_ucb": {"harm_weight": 2}}}},
            "config.policy.cs_ucb.harm_weight and config.policy.cs_ucb.harmWeight are the same value: set one of them",
        ),
        (
            {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
            "serviceMonitor.enabled, prometheusRule.enabled: the cluster does not serve monitoring.coreos.com/v1",
        ),
    ],
    ids=str,
)
def test_invalid_values_are_rejected_with_what_is_valid(values: Object, message: str, helm: Helm) -> None:
    assert message in helm.fail("template", "perllm", str(CHART), "--kube-version=1.37.2", values=values)


def test_old_clusters_are_rejected(helm: Helm) -> None:
    assert "chart requires kubeVersion: >=1.32.0-0" in helm.fail(
        "template", "perllm", str(CHART), "--kube-version=1.31.9", values={}
    )


@pytest.mark.parametrize(
    "values", [{"scheduler": {"image": {"tag": "v1.36.3"}}}, {"global": {"x": 1}, "enabled": True}], ids=str
)
def test_valid_values_are_accepted(values: Object, helm: Helm) -> None:
    helm.render(values)


def test_lint_passes(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", "--kube-version=1.37.2", str(CHART), values={})
