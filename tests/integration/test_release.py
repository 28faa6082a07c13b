"""Pods are released through their status, by the operator and by `perllm release`, on a real API server."""

import asyncio
import re
import shlex
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.credentials import load_credentials
from perllm.cluster.rbac import build_manifests, collection_path
from perllm.cluster.release import build_release, release_pods
from perllm.cluster.release_policy import build_release_policy
from perllm_lab.installation import rbac_user
from perllm_lab.kubernetes.control_plane import ControlPlane

OPERATIONS = Path(__file__).parents[2] / "docs/operate.md"
NAMESPACE, ELSEWHERE = "released", "released-elsewhere"
USER = "releasing-operator"
FOREIGN = "example.com/held"
OURS = names.OUTCOME_FINALIZER
REMOVAL = build_release("")["metadata"]["$deleteFromPrimitiveList/finalizers"]
TIMEOUT_S = 30.0
PODS = 300


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster with the operator's rights and the policy that limits them."""

    plane: ControlPlane
    admin: Client
    operator: Client

    async def create(self, name: str, namespace: str = NAMESPACE, finalizers: tuple[str, ...] = (OURS,)) -> Object:
        metadata = {"name": name, "labels": {names.TASK_LABEL: name}, "finalizers": list(finalizers)}
        spec = {"schedulerName": "none", "serviceAccountName": "pods", "containers": [{"name": "main", "image": "llm"}]}
        return await self.admin.post(names.pods_path(namespace), {"metadata": metadata, "spec": spec})

    async def change(self, pod: Object, change: Object, client: Client | None = None) -> Object:
        return await (client or self.operator).patch(f"{path_of(pod)}/status", change, kind=PatchKind.STRATEGIC)

    async def list_retained(self, namespace: str) -> list[str]:
        items = (await self.admin.get(names.pods_path(namespace)))["items"]
        return [one["metadata"]["name"] for one in items if OURS in one["metadata"].get("finalizers", [])]

    async def perllm(self, *arguments: str) -> tuple[int, str]:
        """Return exit status and output of a command, sent by an administrator."""
        return await call(sys.executable, "-m", "perllm", *arguments, "--kubeconfig", str(self.plane.admin_kubeconfig))


def path_of(pod: Object) -> str:
    return f"{names.pods_path(pod['metadata']['namespace'])}/{pod['metadata']['name']}"


async def call(*argv: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=STDOUT)
    output, _ = await child.communicate()
    return child.returncode or 0, output.decode()


async def is_gone(site: Site, pod: Object) -> bool:
    try:
        await site.admin.get(path_of(pod))
    except ApiError as error:
        return error.status == 404
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(control_plane: ControlPlane) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        admin, operator = [
            await stack.enter_async_context(Client(load_credentials(file)))
            for file in (control_plane.admin_kubeconfig, control_plane.write_kubeconfig(USER))
        ]
        site = Site(control_plane, admin, operator)
        for namespace in (NAMESPACE, ELSEWHERE):
            await admin.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
            await admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "pods"}})
        rights = build_manifests(rbac_user(USER), rbac_user("nobody"), namespaces=[NAMESPACE])
        for manifest in [*rights, *build_release_policy(USER, "releases-of-a-test")]:
            await admin.post(collection_path(manifest), manifest)
        probe = await site.create("probe")
        async with asyncio.timeout(TIMEOUT_S):
            while await is_allowed(site, probe, {"metadata": {"labels": {"probe": f"{time.monotonic_ns()}"}}}):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        yield site
        await release_pods(admin, [], report=print)
        for namespace in (NAMESPACE, ELSEWHERE):
            await admin.delete(f"/api/v1/namespaces/{namespace}")


async def is_allowed(site: Site, pod: Object, change: Object) -> bool:
    """Whether the operator may make this change; also before the API server has read its rights."""
    try:
        await site.change(pod, change)
    except ApiError as error:
        return "ValidatingAdmissionPolicy" not in error.message
    return True


async def test_the_operator_removes_its_finalizer_and_leaves_others(site: Site) -> None:
    pod = await site.create("finished", finalizers=(FOREIGN, OURS))

    released = await site.change(pod, build_release(pod["metadata"]["uid"]))

    assert released["metadata"]["finalizers"] == [FOREIGN]
    assert released["metadata"]["labels"] == pod["metadata"]["labels"]


async def test_a_deleted_pod_is_gone_when_it_is_released(site: Site) -> None:
    pod = await site.create("deleted")
    await site.admin.delete(path_of(pod))
    assert not await is_gone(site, pod)

    await site.change(pod, build_release(pod["metadata"]["uid"]))

    assert await is_gone(site, pod)


async def test_a_pod_without_the_label_can_be_released(site: Site) -> None:
    pod = await site.create("bare")
    await site.admin.patch(path_of(pod), {"metadata": {"labels": None}})

    released = await site.change(pod, build_release(pod["metadata"]["uid"]))

    assert "finalizers" not in released["metadata"]


async def test_another_pod_of_the_same_name_is_not_released(site: Site) -> None:
    pod = await site.create("again")

    with pytest.raises(ApiError):
        await site.change(pod, build_release("another-uid"))

    assert "again" in await site.list_retained(NAMESPACE)


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"phase": "Succeeded"}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        {"metadata": {"labels": {names.TASK_LABEL: "another"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"generateName": "a"}},
        {"metadata": {"finalizers": ["example.com/more"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": [FOREIGN]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": [FOREIGN, OURS]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("releases", [False, True])
async def test_the_operator_may_change_nothing_else_in_a_pod(site: Site, change: Object, releases: bool) -> None:
    pod = await site.create(f"guarded-{time.monotonic_ns()}", finalizers=(FOREIGN, OURS))
    removal = {"$deleteFromPrimitiveList/finalizers": REMOVAL} if releases else {}

    with pytest.raises(ApiError, match="the operator may") as denial:
        await site.change(pod, {**change, "metadata": {**removal, **change.get("metadata", {})}})

    assert (denial.value.status, denial.value.reason) == (403, "Forbidden")


@pytest.mark.parametrize(
    "metadata", [{"labels": {names.RETRY_LABEL: "1"}}, {"annotations": {names.ENERGY_ANNOTATION: "310.00"}}], ids=str
)
@pytest.mark.parametrize("finalizers", [(), (OURS,)], ids=["free", "retained"])
async def test_the_operator_marks_pods_for_a_retry_and_with_what_they_took(
    site: Site, metadata: Object, finalizers: tuple[str, ...]
) -> None:
    pod = await site.create(f"marked-{time.monotonic_ns()}", finalizers=finalizers)

    marked = await site.change(pod, {"metadata": metadata})
    ((field, marks),) = metadata.items()
    again = await site.change(pod, {"metadata": {field: dict.fromkeys(marks, "2")}})

    assert marked["metadata"][field] == {**pod["metadata"].get(field, {}), **marks}
    assert "2" in again["metadata"][field].values()


async def test_other_accounts_are_not_affected(site: Site) -> None:
    pod = await site.create("free")

    changed = await site.change(pod, {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Failed"}}, site.admin)

    assert (changed["status"]["phase"], changed["metadata"]["labels"]["a"]) == ("Failed", "b")


async def test_documented_command_line_releases_pods_without_perllm(site: Site, tmp_path: Path) -> None:
    pod = await site.create("by-hand", finalizers=(FOREIGN, OURS))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {shlex.join(site.plane.kubectl_argv)} "$@"\n')
    kubectl.chmod(0o755)
    (command,) = re.findall(r"^kubectl get pods .* \|\nxargs .*$", OPERATIONS.read_text(), re.MULTILINE)

    status, output = await call("sh", "-c", f"PATH={tmp_path}:$PATH\n{command}")

    assert status == 0, output
    assert await site.list_retained(NAMESPACE) == []
    assert (await site.admin.get(path_of(pod)))["metadata"]["finalizers"] == [FOREIGN]


async def test_command_releases_hundreds_of_pods_within_seconds_and_leaves_foreign_finalizers(site: Site) -> None:
    pods = [site.create(f"many-{number}", ELSEWHERE, (FOREIGN, OURS)) for number in range(PODS)]
    first, *_ = await asyncio.gather(*pods)
    await site.create("other")
    start_s = time.monotonic()

    status, output = await site.perllm("release", "--namespace", ELSEWHERE)

    took_s = time.monotonic() - start_s
    print(f"{PODS} pods released in {took_s:.1f} s, with the start of the command")
    assert (status, output.splitlines()[-1]) == (0, f"done: {PODS} pods released, none is retained any more")
    assert took_s < TIMEOUT_S
    assert (await site.admin.get(path_of(first)))["metadata"]["finalizers"] == [FOREIGN]
    assert await site.list_retained(NAMESPACE) == ["other"]


async def test_pods_of_all_namespaces_are_released_once(site: Site) -> None:
    await site.create("here")
    await site.create("there", ELSEWHERE)
    reports: list[str] = []

    for _ in range(2):
        await release_pods(site.admin, [], report=reports.append)

    assert await site.list_retained(NAMESPACE) == await site.list_retained(ELSEWHERE) == []
    assert reports[-1] == "done: 0 pods released, none is retained any more"


async def test_command_stops_the_operator_first(site: Site) -> None:
    labels = {"app": "operator"}
    # On a node that another test has left, no kubelet would end it.
    spec = {"containers": [{"name": "main", "image": "perllm"}], "nodeSelector": {"kubernetes.io/hostname": "none"}}
    pod = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"metadata": {"name": "operator"}, "spec": {"selector": {"matchLabels": labels}, "template": pod}}
    await site.admin.post(f"/apis/apps/v1/namespaces/{ELSEWHERE}/deployments", deployment)
    own = {"labelSelector": "app=operator"}
    async with asyncio.timeout(TIMEOUT_S):
        while not (await site.admin.get(names.pods_path(ELSEWHERE), **own))["items"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    status, output = await site.perllm("release", "--stop", f"{ELSEWHERE}/operator")

    assert (status, output.splitlines()[0]) == (0, f"deployment {ELSEWHERE}/operator scaled to 0")
    assert (await site.admin.get(names.pods_path(ELSEWHERE), **own))["items"] == []
