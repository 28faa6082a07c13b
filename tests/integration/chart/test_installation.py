import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from integration.chart.helm import CHART, NAMESPACE, Helm, Object, find
from perllm_lab.kubernetes.control_plane import ControlPlane
from perllm_lab.kubernetes.toolchain import default_cache_folder
from schemas.objects import PROMETHEUS_OPERATOR, list_prometheus_crds
from schemas.sources import fetch

OWNER = "meta.helm.sh/release-namespace"
SCHEDULERS = ("first-scheduler", "second-scheduler")
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
LAB = {"scheduler_name": "perllm-lab", "instance": "lab", "namespaces": ["lab"]}
OWN_IMAGE = "mirror.example.com/llm/placer"
EVERYTHING = {
    "image": {"repository": OWN_IMAGE},
    "replicaCount": 2,
    "config": {"namespaces": ["team"]},
    **{name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard", "networkPolicy")},
    "agent": {"enabled": True, "servers": [{"url": "http://127.0.0.1:8000/v1"}]},
}


@dataclass
class Cluster:
    """A control plane without nodes: objects are admitted, but no pod runs."""

    plane: ControlPlane
    helm: Helm

    def kubectl(self, *arguments: str, body: Object | None = None, check: bool = True) -> str:
        line = [*self.plane.kubectl_argv, *arguments]
        text = json.dumps(body) if body else None
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def install(self, namespace: str, values: Object, release: str = "perllm", flags: Sequence[str] = ()) -> str:
        return self.helm(*self._line("install", namespace, release), *flags, values=values)

    def fail(self, namespace: str, values: Object, release: str = "perllm") -> str:
        return self.helm.fail(*self._line("install", namespace, release), values=values)

    def upgrade(self, namespace: str, values: Object, release: str = "perllm") -> str:
        return self.helm(*self._line("upgrade", namespace, release), values=values)

    def uninstall(self, namespace: str, release: str = "perllm") -> None:
        """Uninstall a release without the hook, whose pod cannot run here."""
        access = ("--namespace", namespace, "--kubeconfig", str(self.plane.admin_kubeconfig))
        self.helm("uninstall", release, "--no-hooks", *access)

    def may(self, user: str, verb: str) -> bool:
        question = ("auth", "can-i", verb, "llminferencetasks.perllm.io", "-n", "team", f"--as={user}")
        return self.kubectl(*question, check=False) == "yes\n"

    def list_objects(self, namespace: str) -> set[str]:
        """List what Helm installed for the release of a namespace, and what its kube-scheduler may have left there."""
        kinds = ",".join({one["kind"] for one in self.helm.render(EVERYTHING)})
        installed = self.get(kinds, "--all-namespaces", "--selector=app.kubernetes.io/part-of=perllm")["items"]
        leases = self.get("leases", "--namespace", namespace)["items"]
        return {
            "/".join([one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]])
            for one in [*installed, *leases]
            if one in leases or one["metadata"].get("annotations", {}).get(OWNER) == namespace
        }

    def _line(self, verb: str, namespace: str, release: str) -> list[str]:
        access = ["--namespace", namespace, "--kubeconfig", str(self.plane.admin_kubeconfig)]
        return [verb, release, str(CHART), *access]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster(
    binaries: dict[str, Path], helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    pod = find(helm.render(EVERYTHING), "Deployment")["spec"]["template"]["spec"]
    # This control plane sets its own paths and ports in place of those of the pod.
    flags = [flag for flag in pod["containers"][1]["args"] if not flag.startswith(("--config=", "--secure-port="))]
    folder = tmp_path_factory.mktemp("installation")
    async with ControlPlane(binaries, folder, flags=dict.fromkeys(SCHEDULERS, flags)) as plane:
        cluster = Cluster(plane, helm)
        for name in (NAMESPACE, "lab", "team"):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
            cluster.kubectl("create", "-f", "-", body=namespace)
        sources = await fetch(PROMETHEUS_OPERATOR, cache_folder=default_cache_folder())
        for file in list_prometheus_crds(sources):
            cluster.kubectl("create", "-f", str(file))
        yield cluster


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> str:
    """Installed until the last tests; returns the notes of its installation."""
    return cluster.install(NAMESPACE, EVERYTHING)


def test_notes_put_the_installed_image_into_the_example(release: str, cluster: Cluster) -> None:
    (line,) = (line.strip() for line in release.splitlines() if line.strip().startswith("sed "))
    command, _, rest = line.partition(" | ")

    task = subprocess.run(
        ["sh", "-c", command], cwd=CHART.parents[1], capture_output=True, text=True, check=True
    ).stdout

    assert rest == "kubectl apply -f -"
    pod = yaml.safe_load(task)["spec"]["template"]["spec"]
    installed = cluster.get("deployment", "perllm", "-n", NAMESPACE)["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == installed["containers"][0]["image"]
    assert OWN_IMAGE in command


def test_notes_list_the_next_steps_and_warnings(release: str) -> None:
    assert "kubectl label node NODE perllm.io/tier=edge" in release
    assert "kubectl -n perllm-system exec deploy/perllm -c operator -- perllm doctor" in release
    assert "WARNING: networkPolicy.apiServer.cidrs is empty" in release


def test_pods_pass_restricted_pod_security(release: str, cluster: Cluster) -> None:
    cluster.kubectl("wait", "deploy/perllm", "-n", NAMESPACE, "--for=jsonpath={.status.replicas}=2", "--timeout=20s")


def test_the_task_in_the_notes_is_accepted_and_runs_the_installed_image(release: str, cluster: Cluster) -> None:
    pasted = release[release.index("kubectl apply -f - <<END") : release.index("   If a model server")]
    shell = ["sh", "-c", f"kubectl() {{ cat; }}\n{pasted}"]
    task = yaml.safe_load(subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)
    cluster.kubectl("create", "--dry-run=server", "-f", "-", body=task)
    (container,) = task["spec"]["template"]["spec"]["containers"]
    installed = cluster.get("deployment", "perllm", "-n", NAMESPACE)["spec"]["template"]["spec"]
    assert container["image"] == installed["containers"][0]["image"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": task["spec"]["template"]["spec"]}
    cluster.kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", body=pod)


@pytest.mark.parametrize("hook", ["uninstall", "test"])
def test_pod_of_a_hook_passes_restricted_pod_security(hook: str, release: str, cluster: Cluster) -> None:
    job = find(cluster.helm.render(EVERYTHING), "Job", f"perllm-{hook}")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hook"}, "spec": job["spec"]["template"]["spec"]}

    cluster.kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", body=pod)


def test_pod_of_an_agent_passes_restricted_pod_security(release: str, cluster: Cluster) -> None:
    daemon_set = find(cluster.helm.render(EVERYTHING), "DaemonSet")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": daemon_set["spec"]["template"]["spec"]}

    cluster.kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", body=pod)


def test_token_of_the_scheduler_is_created(release: str, cluster: Cluster) -> None:
    cluster.kubectl("wait", "secret/perllm-scheduler", "-n", NAMESPACE, "--for=jsonpath={.data.token}", "--timeout=20s")


async def test_real_schedulers_elect_a_leader_and_the_standby_is_ready(release: str, cluster: Cluster) -> None:
    configuration = yaml.safe_load(cluster.get("configmap", "perllm", "-n", NAMESPACE)["data"]["scheduler.yaml"])
    user = f"system:serviceaccount:{NAMESPACE}:perllm-scheduler"

    for name in SCHEDULERS:
        await cluster.plane.start_scheduler(name, configuration, user=user)

    holder = "--for=jsonpath={.spec.holderIdentity}"
    cluster.kubectl("wait", "lease/perllm", "-n", NAMESPACE, holder, "--timeout=20s")
    for name in SCHEDULERS:
        await cluster.plane.stop_component(name)


@pytest.mark.parametrize(
    ("account", "verb", "resource", "namespace", "expected"),
    [
        ("perllm", "create", "pods", "team", True),
        ("perllm", "create", "pods", "default", False),
        ("perllm", "list", "pods", "default", False),
        ("perllm", "list", "nodes", None, True),
        ("perllm", "get", "secrets", NAMESPACE, False),
        ("perllm", "update", "leases/perllm", NAMESPACE, False),
        ("perllm", "patch", "leases/perllm", NAMESPACE, True),
        ("perllm", "patch", "leases/other", NAMESPACE, False),
        ("perllm", "patch", "pods", "team", False),
        ("perllm", "patch", "deployments/perllm", NAMESPACE, False),
        ("perllm", "list", "leases", NAMESPACE, True),
        ("perllm-agent", "list", "llminferencetasks.perllm.io", "team", True),
        ("perllm-agent", "list", "llminferencetasks.perllm.io", "default", False),
        ("perllm-agent", "delete", "llminferencetasks.perllm.io", "team", False),
        ("perllm-agent", "list", "pods", "team", False),
        ("perllm-agent", "get", "secrets", NAMESPACE, False),
        ("perllm-scheduler", "update", "leases/perllm", NAMESPACE, True),
        ("perllm-scheduler", "update", "leases/other", NAMESPACE, False),
        ("perllm-scheduler", "get", "secrets", NAMESPACE, False),
    ],
)
def test_accounts_may_do_what_they_need(
    account: str, verb: str, resource: str, namespace: str | None, expected: bool, release: str, cluster: Cluster
) -> None:
    scope = ["-n", namespace] if namespace else []
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"

    answer = cluster.kubectl("auth", "can-i", verb, resource, *scope, user, check=False)

    assert answer.strip() == ("yes" if expected else "no")


async def test_roles_of_kubernetes_include_tasks(release: str, cluster: Cluster) -> None:
    """A controller aggregates their rules, at an unknown time."""
    for role in ("view", "edit"):
        cluster.kubectl("create", "rolebinding", role, "-n", "team", f"--clusterrole={role}", f"--user={role}")

    async with asyncio.timeout(20):
        while not (cluster.may("view", "list") and cluster.may("edit", "create")):  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    assert not cluster.may("view", "create")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "crds.enabled: llminferencetasks.perllm.io belongs to release perllm-system/perllm"),
        ({"config": LAB | {"scheduler_name": "perllm"}}, "config.scheduler_name: release perllm-system/perllm serves"),
        (
            {"config": LAB | {"instance": ""}},
            'config.instance: release perllm-system/perllm keeps its learned state under ""',
        ),
        ({"config": LAB | {"namespaces": []}}, "perllm-system/perllm serves team, this one all namespaces"),
        (
            {"config": LAB | {"namespaces": ["lab", "team"]}},
            "release perllm-system/perllm serves namespace team already",
        ),
    ],
    ids=str,
)
def test_second_release_that_would_conflict_is_rejected(
    values: Object, message: str, release: str, cluster: Cluster
) -> None:
    assert message in cluster.fail("lab", values | {"crds": {"enabled": not values}})


def test_second_release_of_the_same_name_leaves_the_first_alone(release: str, cluster: Cluster) -> None:
    before = cluster.list_objects(NAMESPACE)

    cluster.install("lab", {"crds": {"enabled": False}, "config": LAB})
    cluster.uninstall("lab")

    assert cluster.list_objects(NAMESPACE) == before


def test_upgrade_keeps_tasks_and_uninstallation_leaves_only_what_it_should(release: str, cluster: Cluster) -> None:
    task = yaml.safe_load((CHART.parents[1] / "examples/task.yaml").read_text())
    cluster.kubectl("create", "-n", "team", "-f", "-", body=task)

    cluster.upgrade(NAMESPACE, {"replicaCount": 1})
    cluster.uninstall(NAMESPACE)

    cluster.kubectl("wait", "pods", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=20s", check=False)
    assert cluster.list_objects(NAMESPACE) == {
        "CustomResourceDefinition//llminferencetasks.perllm.io",
        "CustomResourceDefinition//llmnodeprofiles.perllm.io",
        "CustomResourceDefinition//llmnodeservers.perllm.io",
        "CustomResourceDefinition//llmtaskanswers.perllm.io",
    }
    assert cluster.get("llmtasks", "-n", "team")["items"]


def test_old_and_new_pods_follow_the_same_lease_whatever_the_change_of_replicas(cluster: Cluster) -> None:
    """Pods of two revisions may run at the same time, so both must follow the same Lease."""
    place = ("--namespace", NAMESPACE, "--kubeconfig", str(cluster.plane.admin_kubeconfig))
    seen = [cluster.install(NAMESPACE, {"replicaCount": 2}) and read_election(cluster)]
    cluster.upgrade(NAMESPACE, {"replicaCount": 1})
    seen.append(read_election(cluster))
    for revision in (1, 2):
        cluster.helm("rollback", "perllm", str(revision), *place)
        seen.append(read_election(cluster))
    cluster.uninstall(NAMESPACE)

    assert seen == [(replicas, "perllm", "RollingUpdate") for replicas in (2, 1, 2, 1)]


def test_a_rollback_starts_an_operator_again_that_was_stopped(cluster: Cluster) -> None:
    place = ("--namespace", NAMESPACE, "--kubeconfig", str(cluster.plane.admin_kubeconfig))
    cluster.install(NAMESPACE, {})
    cluster.kubectl("scale", "deployment/perllm", "-n", NAMESPACE, "--replicas=0")
    cluster.helm("rollback", "perllm", "1", "--force-conflicts", *place)
    replicas, _, _ = read_election(cluster)
    cluster.uninstall(NAMESPACE)

    assert replicas == 1


def read_election(cluster: Cluster) -> tuple[int, str, str]:
    """Return the number of replicas, the Lease that they follow, and how they replace old pods."""
    deployment = cluster.get("deployment", "perllm", "-n", NAMESPACE)["spec"]
    configuration = yaml.safe_load(cluster.get("configmap", "perllm", "-n", NAMESPACE)["data"]["scheduler.yaml"])
    lease = cluster.get("lease", configuration["leaderElection"]["resourceName"], "-n", NAMESPACE)
    return deployment["replicas"], lease["metadata"]["name"], deployment["strategy"]["type"]


def test_upgrade_that_reuses_values_has_the_defaults_of_new_ones(cluster: Cluster, tmp_path: Path) -> None:
    """An old chart is one whose values lack what is new."""
    old = tmp_path / "perllm"
    shutil.copytree(CHART, old)
    values = yaml.safe_load((old / "values.yaml").read_text())
    del values["probes"], values["strategy"], values["scheduler"]["probes"], values["config"]["runner"]
    (old / "values.yaml").write_text(yaml.safe_dump(values))
    access = ("--namespace", NAMESPACE, "--kubeconfig", str(cluster.plane.admin_kubeconfig))
    cluster.helm("install", "perllm", str(old), *access, values={"replicaCount": 2})
    before = cluster.get("deployment", "perllm", "-n", NAMESPACE)["spec"]

    cluster.helm("upgrade", "perllm", str(CHART), "--reuse-values", *access)
    after = cluster.get("deployment", "perllm", "-n", NAMESPACE)["spec"]
    cluster.uninstall(NAMESPACE)

    assert after == before


def test_old_pods_end_first_when_the_lease_is_renamed(cluster: Cluster) -> None:
    cluster.install(NAMESPACE, {})
    strategies = []
    for lease in ("other", "other"):
        cluster.upgrade(NAMESPACE, {"config": {"leader_lease": lease}})
        strategies.append(read_election(cluster)[2])
    cluster.uninstall(NAMESPACE)

    assert strategies == ["Recreate", "RollingUpdate"]


def test_a_release_takes_over_what_one_that_is_gone_has_kept(cluster: Cluster) -> None:
    cluster.install(NAMESPACE, {})
    cluster.uninstall(NAMESPACE)

    assert 'key "meta.helm.sh/release-namespace" must equal "lab"' in cluster.fail("lab", {})
    cluster.install("lab", {}, flags=["--take-ownership"])
    cluster.uninstall("lab")
    cluster.install(NAMESPACE, {}, flags=["--take-ownership"])
    cluster.uninstall(NAMESPACE)


def test_release_that_keeps_nothing_leaves_nothing(cluster: Cluster) -> None:
    cluster.install(NAMESPACE, {"crds": {"keep": False}})
    cluster.uninstall(NAMESPACE)

    cluster.kubectl("wait", "pods", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=20s", check=False)
    assert cluster.list_objects(NAMESPACE) == set()
