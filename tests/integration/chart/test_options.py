"""What the values of each file in `values` change."""

from collections.abc import Callable, Hashable
from typing import Any

import yaml

from integration.chart.helm import MONITORING, NAMESPACE, STANDARD_LABELS, Helm, Object, find, load_values

Render = Callable[[str], list[Object]]


def test_every_object_carries_the_standard_labels_and_the_common_ones(render: Render) -> None:
    for one in render("placement"):
        assert (STANDARD_LABELS | {"team": "platform"}).items() <= one["metadata"]["labels"].items(), one["kind"]


OWN_LABELS = {"app.kubernetes.io/part-of": "platform", "app.kubernetes.io/version": "7"}
RELABELLED: Object = {
    "commonLabels": OWN_LABELS,
    "podLabels": OWN_LABELS,
    "podAnnotations": {"kubectl.kubernetes.io/default-container": "scheduler", "checksum/config": "none"},
    "agent": {"enabled": True},
    **{name: {"enabled": True, "labels": OWN_LABELS} for name in ("serviceMonitor", "prometheusRule", "dashboard")},
}


class StrictLoader(yaml.CSafeLoader):
    """Rejects a key that is there twice, as kustomize and therefore Flux do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(set(keys)) == len(keys), keys
        return super().construct_mapping(node, deep=deep)


def test_labels_and_annotations_of_the_values_replace_those_of_the_chart(helm: Helm) -> None:
    text = helm.template("perllm", NAMESPACE, f"--api-versions={MONITORING}", values=RELABELLED)
    objects = [one for one in yaml.load_all(text, StrictLoader) if one]
    pod = find(objects, "Deployment")["spec"]["template"]["metadata"]

    assert [one for one in objects if not OWN_LABELS.items() <= one["metadata"]["labels"].items()] == []
    assert OWN_LABELS.items() <= pod["labels"].items()
    assert pod["annotations"] == RELABELLED["podAnnotations"]


def test_pods_are_placed_as_the_values_say(render: Render) -> None:
    given = load_values("placement")
    deployment = find(render("placement"), "Deployment")
    pod = deployment["spec"]["template"]

    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"} | given["nodeSelector"]
    for key in ("tolerations", "affinity", "topologySpreadConstraints"):
        assert pod["spec"][key] == given[key]
    assert given["podLabels"].items() <= pod["metadata"]["labels"].items()
    assert given["podAnnotations"].items() <= pod["metadata"]["annotations"].items()
    assert deployment["metadata"]["annotations"] == given["deploymentAnnotations"]


def test_both_containers_take_what_is_added_to_them(render: Render) -> None:
    given = load_values("placement")
    operator, scheduler = find(render("placement"), "Deployment")["spec"]["template"]["spec"]["containers"]

    assert operator["env"] == given["extraEnv"]
    assert scheduler["env"] == given["scheduler"]["extraEnv"]
    assert scheduler["args"][-1:] == given["scheduler"]["extraArgs"]


def test_service_and_accounts_take_their_annotations(render: Render) -> None:
    given, objects = load_values("placement"), render("placement")
    service = find(objects, "Service")
    operator, scheduler = (find(objects, "ServiceAccount", name) for name in ("perllm", "perllm-scheduler"))

    assert service["metadata"]["annotations"] == given["service"]["annotations"]
    assert service["spec"]["ipFamilyPolicy"] == given["service"]["ipFamilyPolicy"]
    assert operator["metadata"]["annotations"] == given["serviceAccount"]["annotations"]
    assert scheduler["metadata"]["annotations"] == given["scheduler"]["serviceAccount"]["annotations"]


def test_no_roles_are_made_for_a_cluster_that_has_its_own(render: Render) -> None:
    assert [one["kind"] for one in render("own-rbac") if "rbac.authorization.k8s.io" in one["apiVersion"]] == []


def test_every_object_follows_the_full_name(render: Render) -> None:
    names = [one["metadata"]["name"] for one in render("own-rbac") if one["kind"] != "CustomResourceDefinition"]

    assert [name for name in names if not name.removeprefix("perllm-system.").startswith("placer")] == []


def test_ports_follow_the_values_everywhere(render: Render) -> None:
    objects = render("own-rbac")
    operator, scheduler = find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]

    assert [port["containerPort"] for port in (*operator["ports"], *scheduler["ports"])] == [11001, 11002]
    assert "--secure-port=11002" in scheduler["args"]
    assert [port["port"] for port in find(objects, "Service")["spec"]["ports"]] == [11001]


def test_disruption_budget_takes_a_share(render: Render) -> None:
    assert find(render("own-rbac"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == "50%"


def test_an_existing_account_replaces_both_and_its_tokens_expire(render: Render) -> None:
    objects = render("shared-account")
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]

    assert pod["serviceAccountName"] == "existing"
    assert {one["kind"] for one in objects}.isdisjoint({"ServiceAccount", "Secret"})
    assert ["projected" in one for one in pod["volumes"] if "token" in one["name"]] == [True, True]


def test_second_release_installs_no_resource_definitions(render: Render) -> None:
    assert [one for one in render("second-release") if one["kind"] == "CustomResourceDefinition"] == []


def test_monitoring_takes_labels_relabelings_and_rules(render: Render) -> None:
    given, objects = load_values("observability"), render("observability")
    monitor, rule = (find(objects, kind) for kind in ("ServiceMonitor", "PrometheusRule"))
    *alerts, extra = rule["spec"]["groups"][0]["rules"]

    assert given["serviceMonitor"]["labels"].items() <= monitor["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["relabelings"] == given["serviceMonitor"]["relabelings"]
    assert given["prometheusRule"]["labels"].items() <= rule["metadata"]["labels"].items()
    assert {alert["labels"]["team"] for alert in alerts} == {"platform"}
    assert [extra] == given["prometheusRule"]["extraRules"]


def test_dashboard_takes_its_annotations(render: Render) -> None:
    dashboard = find(render("observability"), "ConfigMap", "perllm-dashboard")

    assert dashboard["metadata"]["annotations"] == load_values("observability")["dashboard"]["annotations"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_another_namespace_holds_everything_that_has_one(render: Render) -> None:
    objects = render("extras")
    data = yaml.safe_load(find(objects, "ConfigMap", "perllm")["data"]["scheduler.yaml"])
    subjects = [one for binding in objects for one in binding.get("subjects", ())]

    assert {one["metadata"].get("namespace", "team") for one in objects} == {"team"}
    assert {one["namespace"] for one in subjects} == {"team"}
    assert data["leaderElection"]["resourceNamespace"] == "team"


def test_probes_take_other_times_or_are_left_out(render: Render) -> None:
    objects = render("extras")
    operator, scheduler, _ = find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (agent,) = find(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]

    assert "startupProbe" not in operator
    assert operator["livenessProbe"] == {
        "httpGet": {"path": "/healthz", "port": "health"},
        "periodSeconds": 10,
        "timeoutSeconds": 20,
        "failureThreshold": 3,
    }
    assert scheduler["readinessProbe"]["successThreshold"] == 1
    assert agent["startupProbe"]["failureThreshold"] == 300


def test_deployment_takes_another_strategy(render: Render) -> None:
    assert find(render("extras"), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_all_pods_take_dns_settings(render: Render) -> None:
    given, objects = load_values("extras"), render("extras")
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("Deployment", "DaemonSet", "Job")]

    assert [(pod["dnsPolicy"], pod["dnsConfig"]) for pod in pods] == [(given["dnsPolicy"], given["dnsConfig"])] * 4


def test_secret_for_prometheus_is_mounted_for_the_operator_only(render: Render) -> None:
    pod = find(render("extras"), "Deployment")["spec"]["template"]["spec"]
    mounts = {one["name"]: {mount["mountPath"] for mount in one.get("volumeMounts", ())} for one in pod["containers"]}

    assert [name for name, paths in mounts.items() if "/etc/perllm-prometheus" in paths] == ["operator"]
    assert {"name": "prometheus", "secret": {"secretName": "prometheus-access"}} in pod["volumes"]


def test_containers_and_objects_can_be_added(render: Render) -> None:
    given, objects = load_values("extras"), render("extras")

    assert find(objects, "Deployment")["spec"]["template"]["spec"]["containers"][2:] == given["extraContainers"]
    assert find(objects, "ConfigMap", "perllm-notes")["metadata"]["labels"] == {"release": "perllm"}
