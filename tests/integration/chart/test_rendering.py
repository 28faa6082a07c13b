from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from integration.chart.checker import Checker
from integration.chart.helm import CHART, IMAGE, NAMESPACE, VERSION, Helm, Object, find, is_hook, load_values
from perllm.agent.config import AgentConfig
from perllm.api.crd import list_crds
from perllm.cluster.agent_policy import build_agent_policies
from perllm.cluster.authors import build_author_policy
from perllm.cluster.rbac import build_agent_manifests, build_manifests, build_shadow_manifests
from perllm.cluster.release_policy import build_release_policy
from perllm.config import Config
from perllm.extender.scheduler import scheduler_configuration
from perllm_lab.kubernetes.toolchain import default_cache_folder
from schemas.objects import (
    KUBERNETES,
    PROMETHEUS_OPERATOR,
    read_kubernetes_schemas,
    read_prometheus_schemas,
)
from schemas.sources import fetch

HERE = Path(__file__).parent
SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
FLAGS = ("--show-only=templates/deployment.yaml", "--kube-version=1.37.2")
LEASE = {"leader_lease": "perllm"}
TEAMS = {"config": {"namespaces": ["a", "b"]}}
DEVICES: Object = {"device_class": "gpu.nvidia.com", "driver": "gpu.nvidia.com"}
Render = Callable[[str], list[Object]]


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=KUBERNETES)
async def checker(request: pytest.FixtureRequest) -> Checker:
    kubernetes = await fetch(KUBERNETES[request.param], cache_folder=default_cache_folder())
    operator = await fetch(PROMETHEUS_OPERATOR, cache_folder=default_cache_folder())
    return Checker(read_kubernetes_schemas(kubernetes) | read_prometheus_schemas(operator))


@pytest.mark.parametrize("values", SETS)
def test_objects_match_the_schemas_of_kubernetes(values: str, render: Render, checker: Checker) -> None:
    assert checker.list_problems(render(values)) == []


def test_schemas_reject_unknown_fields(render: Render, checker: Checker) -> None:
    deployment = find(render("default"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["comand"] = ["perllm"]

    (problem,) = checker.list_problems([deployment])

    assert "'comand' was unexpected" in problem


def test_resource_definitions_are_those_of_the_operator(render: Render) -> None:
    objects = render("default")

    for crd in list_crds():
        rendered = find(objects, "CustomResourceDefinition", crd["metadata"]["name"])
        assert rendered["spec"] == crd["spec"]
        assert rendered["metadata"]["annotations"] == {
            "helm.sh/resource-policy": "keep",
            # For Argo CD the former is only about the deletion of the application.
            "argocd.argoproj.io/sync-options": "Prune=false",
        }


def test_resource_definitions_are_not_kept_if_the_values_say_so(render: Render) -> None:
    crds = [one for one in render("own-rbac") if one["kind"] == "CustomResourceDefinition"]

    assert ["annotations" in crd["metadata"] for crd in crds] == [False] * 4


@pytest.mark.parametrize("values", SETS)
def test_operator_gets_its_configuration(values: str, render: Render) -> None:
    deployment = find(render(values), "Deployment")["metadata"]
    has_agents = load_values(values).get("agent", {}).get("enabled")
    agents = {"agents": {"lease_namespace": deployment["namespace"]}} if has_agents else {}
    given = load_values(values).get("config", {}) | agents
    data = find(render(values), "ConfigMap", deployment["name"])["data"]

    assert Config.model_validate(yaml.safe_load(data["perllm.yaml"])) == Config.model_validate(LEASE | given)


@pytest.mark.parametrize(
    "file", sorted((CHART.parents[1] / "examples/values").glob("*.yaml")), ids=lambda file: file.stem
)
def test_examples_of_values_are_valid(file: Path, helm: Helm) -> None:
    values = yaml.safe_load(file.read_text())

    data = find(helm.render(values), "ConfigMap")["data"]

    assert Config.model_validate(yaml.safe_load(data["perllm.yaml"])) == Config.model_validate(LEASE | values["config"])


@pytest.mark.parametrize(("image", "expected"), [("", f"{IMAGE}:{VERSION}"), ("mirror/perllm:1", "mirror/perllm:1")])
def test_runner_pods_have_the_image_of_the_operator_unless_another_is_named(
    image: str, expected: str, helm: Helm
) -> None:
    values = {"config": {"runner": {"server_url": "http://$(NODE_IP):8000/v1", "image": image}}}
    data = find(helm.render(values), "ConfigMap", "perllm")["data"]

    assert Config.model_validate(yaml.safe_load(data["perllm.yaml"])).runner.image == expected


@pytest.mark.parametrize("values", SETS)
def test_scheduler_gets_the_configuration_that_the_operator_prints(values: str, render: Render) -> None:
    deployment = find(render(values), "Deployment")["metadata"]
    data = find(render(values), "ConfigMap", deployment["name"])["data"]
    config = Config.model_validate(yaml.safe_load(data["perllm.yaml"]))

    assert yaml.safe_load(data["scheduler.yaml"]) == scheduler_configuration(
        f"http://127.0.0.1:{config.server.extender_port}",
        config.scheduler_name,
        lease=config.leader_lease,
        namespace=deployment["namespace"],
    )


def account(name: str) -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}


@pytest.mark.parametrize(
    ("values", "operator", "scheduler", "scope"),
    [
        ({}, "perllm", "perllm-scheduler", {}),
        (TEAMS, "perllm", "perllm-scheduler", {"namespaces": ["a", "b"]}),
        ({"scheduler": {"serviceAccount": {"create": False}}}, "perllm", "perllm", {}),
        (load_values("shared-account"), "existing", "existing", {}),
        (
            {"config": {"agents": {"lease_namespace": "leases"}}},
            "perllm",
            "perllm-scheduler",
            {"agent_namespace": "leases"},
        ),
        ({"config": {"kueue": {"enabled": True}}}, "perllm", "perllm-scheduler", {"has_queues": True}),
        (
            {"config": {"kueue": {"enabled": True}, "namespaces": ["a", "b"]}},
            "perllm",
            "perllm-scheduler",
            {"has_queues": True, "namespaces": ["a", "b"]},
        ),
        ({"config": {"nodes": {"devices": [DEVICES]}}}, "perllm", "perllm-scheduler", {"has_devices": True}),
    ],
)
def test_grants_the_rights_that_the_operator_lists_and_no_others(
    values: Object, operator: str, scheduler: str, scope: Object, helm: Helm
) -> None:
    wanted = build_manifests(account(operator), account(scheduler), namespace=NAMESPACE, lease="perllm", **scope)

    assert list_grants([one for one in helm.render(values) if not is_hook(one)]) == list_grants(wanted)


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        ({"agent": {"enabled": True}}, {"server_namespaces": [NAMESPACE]}),
        (load_values("agent"), {"namespaces": ["team"], "server_namespaces": [NAMESPACE, "models"]}),
    ],
    ids=["all namespaces", "some"],
)
def test_agents_get_the_rights_that_they_need_and_the_operator_those_to_watch_them(
    values: Object, scope: Object, helm: Helm
) -> None:
    accounts = (account("perllm"), account("perllm-scheduler"))
    of_operator = build_manifests(
        *accounts,
        namespace=NAMESPACE,
        lease="perllm",
        agent_namespace=NAMESPACE,
        namespaces=scope.get("namespaces", ()),
    )
    wanted = [*of_operator, *build_agent_manifests(account("perllm-agent"), NAMESPACE, **scope)]

    assert list_grants([one for one in helm.render(values) if not is_hook(one)]) == list_grants(wanted)


@pytest.mark.parametrize("values", ["default", "shared-account"])
def test_an_uninstallation_adds_the_rights_to_stop_one_deployment(values: str, render: Render) -> None:
    objects = render(values)
    name = find(objects, "Deployment")["metadata"]["name"]
    role = find(objects, "Role", f"{name}-uninstall")

    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"], "resourceNames": [name]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    assert find(objects, "RoleBinding", f"{name}-uninstall")["subjects"] == [
        account(find(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"])
    ]


@pytest.mark.parametrize(
    ("values", "namespaces"), [({}, []), (TEAMS, ["--namespace=a", "--namespace=b"])], ids=["all", "some"]
)
def test_an_uninstallation_stops_the_operator_and_releases_the_pods_that_it_served(
    values: Object, namespaces: list[str], helm: Helm
) -> None:
    hooks = [one for one in helm.render(values | {"testHook": {"enabled": False}}) if is_hook(one)]
    (container,) = find(hooks, "Job")["spec"]["template"]["spec"]["containers"]

    assert container["args"] == ["release", f"--stop={NAMESPACE}/perllm", *namespaces]
    assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in hooks} == {"pre-delete"}
    assert [one["kind"] for one in hooks if one["metadata"]["annotations"].get("helm.sh/hook-weight") != "-1"] == [
        "Job"
    ]


@pytest.mark.parametrize("hook", ["uninstall", "test"])
def test_nothing_takes_the_pod_of_a_hook_for_one_of_the_operator(hook: str, render: Render) -> None:
    objects = render("replicas")
    labels = find(objects, "Job", f"perllm-{hook}")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        find(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        find(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(objects, "Service")["spec"]["selector"],
    ]

    assert [selector for selector in selectors if selector.items() <= labels.items()] == []


@pytest.mark.parametrize("values", [{"uninstallHook": {"enabled": False}}, {"rbac": {"create": False}}], ids=str)
def test_the_hook_of_the_uninstallation_can_be_left_out(values: Object, helm: Helm) -> None:
    assert [one["metadata"]["name"] for one in helm.render(values) if is_hook(one)] == ["perllm-test"]


def test_helm_test_examines_the_cluster_as_the_operator_sees_it(helm: Helm) -> None:
    objects = helm.render({"prometheusSecret": "token", "testHook": {"extraArgs": ["--no-prometheus"]}})
    job, operator = find(objects, "Job", "perllm-test"), find(objects, "Deployment")["spec"]["template"]["spec"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert container["args"] == ["doctor", "--config=/etc/perllm/perllm.yaml", "--no-prometheus"]
    assert pod["serviceAccountName"] == operator["serviceAccountName"]
    # So that its log can be read after it has succeeded.
    assert job["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted >= {"/etc/perllm", "/etc/perllm-prometheus", "/var/run/secrets/kubernetes.io/serviceaccount"}


def test_helm_test_can_be_left_out(helm: Helm) -> None:
    jobs = [one for one in helm.render({"testHook": {"enabled": False}}) if one["kind"] == "Job"]
    assert [one["metadata"]["name"] for one in jobs] == ["perllm-uninstall"]


def list_grants(objects: list[Object]) -> list[str]:
    """List who may do what where, whatever the names of the roles."""
    roles = {
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one.get("rules") for one in objects
    }
    bindings = [one for one in objects if one["kind"].endswith("RoleBinding")]
    grants = []
    for one in bindings:
        place = one["metadata"].get("namespace")
        reference = one["roleRef"]
        kind = reference["kind"]
        rules = roles.get((kind, place if kind == "Role" else None, reference["name"]), reference["name"])
        (subject,) = one["subjects"]
        grants.append(f"{subject} in {place or 'the cluster'}: {rules}")
    return sorted(grants)


def test_token_of_one_account_is_in_one_container_only(render: Render) -> None:
    pod = find(render("default"), "Deployment")["spec"]["template"]["spec"]
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in pod["containers"]}
    tokens = {one["name"]: set(one) - {"name"} for one in pod["volumes"] if "token" in one["name"]}

    assert mounts == {"operator": {"config", "state", "operator-token"}, "scheduler": {"config", "scheduler-token"}}
    assert tokens == {"operator-token": {"projected"}, "scheduler-token": {"secret"}}
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("1.35.4", "registry.k8s.io/kube-scheduler:v1.35.4"),
        ("v1.36.3-gke.1000", "registry.k8s.io/kube-scheduler:v1.36.3"),
        ("v1.37.2+k3s1", "registry.k8s.io/kube-scheduler:v1.37.2"),
        # As Argo CD passes it.
        ("v1.37", "registry.k8s.io/kube-scheduler:v1.37.0"),
    ],
)
def test_scheduler_has_the_version_of_the_cluster(version: str, image: str, helm: Helm) -> None:
    pod = find(helm.render({}, version=version), "Deployment")["spec"]["template"]["spec"]

    assert pod["containers"][1]["image"] == image


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("registry.example.com/perllm/perllm", f"mirror:5000/perllm/perllm:{VERSION}"),
        ("localhost/perllm", f"mirror:5000/perllm:{VERSION}"),
        ("team/perllm", f"mirror:5000/team/perllm:{VERSION}"),
    ],
)
def test_global_registry_replaces_that_of_each_image(repository: str, expected: str, helm: Helm) -> None:
    values = {"global": {"imageRegistry": "mirror:5000"}, "image": {"repository": repository}}

    containers = find(helm.render(values), "Deployment")["spec"]["template"]["spec"]["containers"]

    assert [one["image"] for one in containers] == [expected, "mirror:5000/kube-scheduler:v1.37.2"]


@pytest.mark.parametrize("replicas", [1, 2])
def test_pods_follow_the_same_lease_whatever_their_number(replicas: int, helm: Helm) -> None:
    """So at most one is active during a rollout or rollback from any number to any other."""
    objects = helm.render({"replicaCount": replicas})
    data = {name: yaml.safe_load(text) for name, text in find(objects, "ConfigMap")["data"].items()}

    assert data["perllm.yaml"]["leader_lease"] == "perllm"
    assert data["scheduler.yaml"]["leaderElection"]["leaderElect"] is True
    assert data["scheduler.yaml"]["leaderElection"]["resourceName"] == "perllm"
    assert find(objects, "Lease")["metadata"]["name"] == "perllm"


def test_admission_policies_are_those_of_the_operator(render: Render) -> None:
    authors, releases = (f"{NAMESPACE}.perllm-{name}" for name in ("task-authors", "pod-releases"))
    user = f"system:serviceaccount:{NAMESPACE}:perllm"

    wanted = [*build_author_policy(authors), *build_release_policy(user, releases)]

    assert list_policies(render("default")) == sorted((one["metadata"]["name"], str(one["spec"])) for one in wanted)


def test_agents_are_confined_by_the_policies_for_their_account(render: Render) -> None:
    reports, objects = (f"{NAMESPACE}.perllm-{name}" for name in ("agent-reports", "agent-objects"))
    wanted = build_agent_policies(f"system:serviceaccount:{NAMESPACE}:perllm-agent", reports, objects)

    assert {(one["metadata"]["name"], str(one["spec"])) for one in wanted} <= set(list_policies(render("agent")))
    assert find(render("agent"), "DaemonSet")["spec"]["template"]["spec"]["serviceAccountName"] == "perllm-agent"


def test_agents_run_where_the_operator_places_tasks(helm: Helm) -> None:
    values = {"agent": {"enabled": True}, "config": {"nodes": {"tier_label": "example.com/tier"}}}

    affinity = find(helm.render(values), "DaemonSet")["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]

    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": "example.com/tier", "operator": "Exists"}]}


def test_agents_get_a_configuration_that_they_understand(render: Render) -> None:
    objects = render("agent")
    text = find(objects, "ConfigMap", "perllm-agent")["data"]["agent.yaml"]

    config = AgentConfig.model_validate(yaml.safe_load(text))

    assert (config.namespaces, config.server_namespaces, config.lease_namespace) == (
        ("team",),
        (NAMESPACE, "models"),
        NAMESPACE,
    )
    assert [(one.url, one.slots) for one in config.servers] == [
        ("http://models.example.com:8000/v1", 8),
        ("https://models.example.com/v1", None),
    ]
    assert config.grace_s < find(objects, "DaemonSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_agents_listen_where_the_operator_does(helm: Helm) -> None:
    """In a cluster of IPv6 only, nobody reaches 0.0.0.0."""
    objects = helm.render({"agent": {"enabled": True}, "config": {"server": {"health_host": "::"}}})
    text = find(objects, "ConfigMap", "perllm-agent")["data"]["agent.yaml"]

    assert AgentConfig.model_validate(yaml.safe_load(text)).health_host == "::"


def test_only_agents_mount_the_keys_of_servers_and_only_those_that_are_named(render: Render) -> None:
    objects = render("agent")
    config = yaml.safe_load(find(objects, "ConfigMap", "perllm-agent")["data"]["agent.yaml"])
    (volume,) = (
        one for one in find(objects, "DaemonSet")["spec"]["template"]["spec"]["volumes"] if one["name"] == "keys"
    )

    assert volume["projected"]["sources"] == [
        {"secret": {"name": "models", "items": [{"key": "token", "path": "server-1"}]}}
    ]
    assert [one.get("api_key_file") for one in config["servers"]] == [None, "/etc/perllm-keys/server-1"]
    assert "models" not in str(find(objects, "Deployment"))


def test_nothing_takes_the_pod_of_an_agent_for_one_of_the_operator(render: Render) -> None:
    objects = render("agent")
    labels = find(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]

    assert not find(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not find(objects, "Service")["spec"]["selector"].items() <= labels.items()


def test_agents_in_the_network_of_the_host_still_find_services_by_name(helm: Helm) -> None:
    pod = find(helm.render({"agent": {"enabled": True, "hostNetwork": True}}), "DaemonSet")["spec"]["template"]["spec"]

    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


def test_there_are_no_agents_unless_they_are_enabled(render: Render) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in render("observability") + render("network-policy")}

    assert {name for _, name in names if "agent" in name} == set()


def test_operator_that_shares_its_account_with_the_scheduler_is_not_limited(render: Render) -> None:
    """The policy would keep kube-scheduler from reporting why it cannot place a pod."""
    assert {name for name, _ in list_policies(render("shared-account"))} == {f"{NAMESPACE}.perllm-task-authors"}


def test_admission_policies_can_be_left_out(helm: Helm) -> None:
    assert list_policies(helm.render({"admissionPolicy": {"enabled": False}})) == []


def list_policies(objects: list[Object]) -> list[tuple[str, str]]:
    """List name and spec of all admission policies and their bindings."""
    policies = [one for one in objects if one["kind"].startswith("ValidatingAdmission")]
    return sorted((one["metadata"]["name"], str(one["spec"])) for one in policies)


@pytest.mark.parametrize(
    ("release", "overrides", "expected"),
    [
        ("perllm", {}, "perllm"),
        ("prod", {}, "prod-perllm"),
        ("my.perllm", {}, "my-perllm"),
        # Names of Services begin with a letter.
        ("1st", {}, "perllm-1st"),
        # Names are cut to 50 characters, and end with a letter or a digit.
        (f"{'a' * 48}--b", {}, "a" * 48),
        ("prod", {"nameOverride": "placer"}, "prod-placer"),
        ("prod", {"fullnameOverride": "placer"}, "placer"),
    ],
)
def test_names_follow_the_release(release: str, overrides: Object, expected: str, helm: Helm) -> None:
    text = helm("template", release, str(CHART), *FLAGS, values=overrides)

    assert yaml.safe_load(text)["metadata"]["name"] == expected


SHADOW: Object = {"config": {"mode": "shadow"}}


@pytest.mark.parametrize("namespaces", [[], ["a", "b"]], ids=["all namespaces", "some"])
def test_in_shadow_mode_everything_is_read_only_but_the_profiles_of_nodes(namespaces: list[str], helm: Helm) -> None:
    objects = helm.render({"config": {"mode": "shadow", "namespaces": namespaces}})

    assert list_grants(objects) == list_grants(build_shadow_manifests(account("perllm"), namespaces=namespaces))
    bound = {one["roleRef"]["name"] for one in objects if one["kind"].endswith("RoleBinding")}
    roles = {one["metadata"]["name"]: one for one in objects if one["kind"] in ("Role", "ClusterRole")}
    rules = [rule for name in bound for rule in roles[name]["rules"]]
    writes = [rule for rule in rules if set(rule["verbs"]) - {"get", "list", "watch"}]
    assert [resource for rule in writes for resource in rule["resources"]] == [
        "llmnodeprofiles",
        "llmnodeprofiles/status",
    ]


def test_in_shadow_mode_there_is_no_kube_scheduler_and_nothing_that_others_are_subject_to(helm: Helm) -> None:
    objects = helm.render(SHADOW)
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]

    assert [one["name"] for one in pod["containers"]] == ["operator"]
    assert {one["name"] for one in pod["volumes"]} == {"config", "state", "operator-token"}
    assert not {"Lease", "Secret", "ValidatingAdmissionPolicy"} & {one["kind"] for one in objects}
    assert [one["metadata"]["name"] for one in objects if one["kind"] == "Job"] == ["perllm-test"]
    assert find(objects, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    config = Config.model_validate(yaml.safe_load(find(objects, "ConfigMap", "perllm")["data"]["perllm.yaml"]))
    assert config == Config(mode="shadow")


def test_in_shadow_mode_the_notes_do_not_promise_that_tasks_are_served(helm: Helm) -> None:
    notes = helm("install", "perllm", str(CHART), "--dry-run=client", values=SHADOW).partition("NOTES:")[2]

    assert "It places nothing, and compares the pods of all namespaces" in notes
    assert "serves tasks" not in notes
    assert "LLMInferenceTask" not in notes
