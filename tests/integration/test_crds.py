import json
import subprocess
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests

from perllm.api import names
from perllm.cluster.credentials import Credentials, load_credentials
from perllm_lab.kubernetes.control_plane import ControlPlane
from programs.kubernetes import needs_kubernetes

ROOT = Path(__file__).parents[2]
NAMESPACE = "crds"
IMMUTABLE = {
    "model": "other",
    "promptTokens": 11,
    "outputTokens": 12,
    "inputBytes": "3Mi",
    "deadline": "31s",
    "tiers": ["cloud"],
    "onInfeasible": "Reject",
    "template": {"spec": {"containers": [{"name": "main", "image": "other"}]}},
}
OPTIONAL = {
    "promptTokens": 9,
    "outputTokens": 8,
    "tiers": ["edge"],
    "system": "Be brief.",
    "maxTokens": 7,
    "temperature": 0.5,
    "topP": 0.9,
    "seed": 1,
    "stop": ["."],
}
OTHERS = {
    "promptTokens": 8,
    "outputTokens": 7,
    "tiers": ["cloud"],
    "system": "Be long.",
    "maxTokens": 6,
    "temperature": 0.4,
    "topP": 0.8,
    "seed": 2,
    "stop": ["!"],
}


class Kubectl:
    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv

    def __call__(self, *args: str, body: object = None) -> str:
        result = self.run(*args, body=body)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refusal(self, *args: str, body: object = None) -> str:
        result = self.run(*args, body=body)
        assert result.returncode != 0, f"was accepted: {result.stdout}"
        return result.stderr

    def run(self, *args: str, body: object = None) -> subprocess.CompletedProcess[str]:
        text = None if body is None else json.dumps(body)
        command = (*self._argv, "--namespace", NAMESPACE, *args)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


class TaskApi:
    """The tasks of the namespace, without a process for each request, which would take most of the time."""

    def __init__(self, credentials: Credentials, session: requests.Session) -> None:
        session.trust_env = False
        session.verify = str(credentials.ca_file)
        session.cert = (str(credentials.certificate_file), str(credentials.key_file))
        self._session = session
        self._url = f"{credentials.server}{names.tasks_path(NAMESPACE)}"

    def create(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return what would be created, and create nothing."""
        status, created = self._post(task, dryRun="All")
        assert status == HTTPStatus.CREATED, created
        return created

    def refusal(self, task: dict[str, Any]) -> str:
        """Return why a task is not created."""
        return self._refusal(*self._post(task, dryRun="All"))

    def keep(self, task: dict[str, Any]) -> None:
        """Create a task if it does not exist."""
        status, created = self._post(task)
        assert status in (HTTPStatus.CREATED, HTTPStatus.CONFLICT), created

    def refusal_of_change(self, name: str, spec: dict[str, Any]) -> str:
        """Return why the spec of a task is not changed."""
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self._session.patch(f"{self._url}/{name}", json.dumps({"spec": spec}), headers=headers, timeout=60)
        return self._refusal(answer.status_code, answer.json())

    def _post(self, task: dict[str, Any], **options: str) -> tuple[int, dict[str, Any]]:
        answer = self._session.post(self._url, json=task, params={"fieldValidation": "Strict", **options}, timeout=60)
        return answer.status_code, answer.json()

    @staticmethod
    def _refusal(status: int, body: dict[str, Any]) -> str:
        assert status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY), body
        message: str = body["message"]
        return message


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    kubectl = Kubectl(control_plane.kubectl_argv)
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    if kubectl.run("get", "namespace", NAMESPACE).returncode:
        kubectl("create", "namespace", NAMESPACE)
    yield kubectl
    kubectl("delete", "llmtask", "--all")


@pytest.fixture(scope="module")
def tasks(kubectl: Kubectl, control_plane: ControlPlane) -> Iterator[TaskApi]:
    with requests.Session() as session:
        yield TaskApi(load_credentials(control_plane.admin_kubeconfig), session)


def wait_until(is_so: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s, "not so in time"
        time.sleep(0.2)


def make_task(name: str = "task", **changes: Any) -> dict[str, Any]:
    spec = {
        "model": "llama",
        "promptTokens": 10,
        "deadline": "30s",
        "template": {"spec": {"containers": [{"name": "main", "image": "llm", "env": [{"name": "A", "value": "b"}]}]}},
    }
    return {
        "apiVersion": "perllm.io/v1alpha1",
        "kind": "LLMInferenceTask",
        "metadata": {"name": name},
        "spec": {**spec, **changes},
    }


def test_valid_task_is_accepted_with_defaults(tasks: TaskApi) -> None:
    spec = tasks.create(make_task())["spec"]

    assert {key: value for key, value in spec.items() if key not in make_task()["spec"]} == {
        "inputBytes": 0,
        "minHitChance": 0.95,
        "onDeadlineMissed": "Continue",
        "onInfeasible": "BestEffort",
        "priority": 0,
        "retries": 0,
        "suspend": False,
        "whenToRun": "Soonest",
    }
    assert spec["template"] == make_task()["spec"]["template"]


@pytest.mark.parametrize("value", [0, 4096, "2Mi", "1.5G", "1e6", "1Ti"])
def test_input_bytes_may_be_a_number_or_a_quantity(tasks: TaskApi, value: int | str) -> None:
    assert tasks.create(make_task(inputBytes=value))["spec"]["inputBytes"] == value


@pytest.mark.parametrize("value", ["500ms", "1h2m3.5s", "24h"])
def test_deadline_may_be_any_duration_up_to_a_day(tasks: TaskApi, value: str) -> None:
    assert tasks.create(make_task(deadline=value))["spec"]["deadline"] == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deadline": "soon"}, "spec.deadline must be a duration of more than 0s and at most 24h, for example 30s"),
        ({"deadline": "-30s"}, "spec.deadline must be a duration of more than 0s"),
        ({"deadline": "0s"}, "spec.deadline must be a duration of more than 0s"),
        ({"deadline": "24h1s"}, "spec.deadline must be a duration of more than 0s and at most 24h"),
        ({"deadline": "999999999h"}, "spec.deadline must be a duration of more than 0s and at most 24h"),
        ({"ttlAfterFinished": "721h"}, "spec.ttlAfterFinished must be a duration of at most 720h"),
        ({"promptTokens": -1}, "spec.promptTokens in body should be greater than or equal to 1"),
        ({"outputTokens": -1}, "spec.outputTokens in body should be greater than or equal to 1"),
        ({"promptTokens": "many"}, "spec.promptTokens in body must be of type integer"),
        ({"tiers": ["moon"]}, 'spec.tiers[0]: Unsupported value: "moon": supported values: "edge", "cloud"'),
        ({"tiers": ["edge", "edge"]}, "spec.tiers[1]: Duplicate value"),
        ({"inputBytes": "2MiB"}, "spec.inputBytes must be a quantity between 0 and 1Ti, for example 512Ki"),
        ({"inputBytes": -1}, "spec.inputBytes must be a quantity between 0 and 1Ti"),
        ({"inputBytes": "-1Ki"}, "spec.inputBytes must be a quantity between 0 and 1Ti"),
        ({"inputBytes": "2Ti"}, "spec.inputBytes must be a quantity between 0 and 1Ti"),
        (
            {"template": {"spec": {"containers": []}}},
            "spec.template.spec.containers in body should have at least 1 item",
        ),
        ({"template": {"spec": {}}}, "spec.template.spec.containers: Required value"),
        ({"model": "a model"}, "spec.model in body should match"),
        ({"retries": 11}, "spec.retries in body should be less than or equal to 10"),
        ({"dedline": "30s"}, 'unknown field "spec.dedline"'),
    ],
)
def test_invalid_task_is_denied_with_what_is_valid(tasks: TaskApi, changes: dict[str, Any], message: str) -> None:
    assert message in tasks.refusal(make_task(**changes))


def make_served(**changes: Any) -> dict[str, Any]:
    task = make_task()
    task["spec"] = {"model": "llama", "deadline": "5s", **changes}
    return task


LONG = "x" * 131_072


@pytest.mark.parametrize(
    "work",
    [
        {"prompt": "Which?"},
        {"prompt": LONG},
        {"prompt": "\N{GRINNING FACE}" * 131_072},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]},
        {"prompts": ["Which?"] * 256, "system": "Be brief."},
        {
            "prompt": "Which?",
            "system": "Be brief.",
            "maxTokens": 9,
            "temperature": 0.5,
            "topP": 1,
            "seed": 3,
            "stop": ["."],
        },
    ],
    ids=["prompt", "long", "wide characters", "messages", "prompts", "parameters"],
)
def test_a_task_may_state_its_prompt_instead_of_a_pod(tasks: TaskApi, work: dict[str, Any]) -> None:
    spec = tasks.create(make_served(**work))["spec"]

    assert {key: spec[key] for key in work} == work


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ({}, "exactly one of spec.prompt, spec.messages, spec.prompts and spec.template must be given"),
        (
            {"prompt": "Which?", "messages": [{"role": "user", "content": "Which?"}]},
            "exactly one of spec.prompt, spec.messages, spec.prompts and spec.template must be given",
        ),
        ({"prompt": ""}, "spec.prompt in body should be at least 1 chars long"),
        ({"prompt": LONG + "x"}, "spec.prompt: Too long: may not be more than 131072"),
        ({"prompt": LONG, "system": "x"}, "spec.prompt and spec.system may have at most 131072 characters together"),
        (
            {"messages": [{"role": "user", "content": LONG}, {"role": "user", "content": "x"}]},
            "spec.messages and spec.system may have at most 131072 characters together; split them into several tasks",
        ),
        (
            {"prompts": [LONG, "x"]},
            "spec.prompts and spec.system may have at most 131072 characters together; split them into several tasks",
        ),
        ({"prompts": ["x"] * 257}, "spec.prompts: Too many: 257: must have at most 256 items"),
        ({"prompts": []}, "spec.prompts in body should have at least 1 items"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 'Unsupported value: "tool"'),
        ({"prompt": "Which?", "stop": ["."] * 5}, "spec.stop: Too many: 5: must have at most 4 items"),
        ({"template": make_task()["spec"]["template"]}, "spec.promptTokens is required with a template"),
        (
            {**make_task()["spec"], "maxTokens": 5},
            "sampling parameters and spec.system belong to spec.prompt, spec.messages and spec.prompts",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_prompt_that_cannot_be_sent_is_denied(tasks: TaskApi, work: dict[str, Any], message: str) -> None:
    assert message in tasks.refusal(make_served(**work))


def test_a_status_can_be_written_only_if_no_run_was_reported(kubectl: Kubectl) -> None:
    """The operator relies on it: a test for null passes where there is nothing."""
    kubectl("create", "-f", "-", body={**make_served(prompt="Which?"), "metadata": {"name": "reported"}})
    patch = [
        {"op": "test", "path": "/status/run", "value": None},
        {"op": "add", "path": "/status", "value": {"phase": "Scheduled", "attempts": 1}},
    ]
    write = ("patch", "llmtask", "reported", "--subresource=status", "--type=json", "-p", json.dumps(patch))
    run = {"attempt": 1, "end": "Answered", "startTime": "2026-01-02T03:04:05Z", "endTime": "2026-01-02T03:04:06Z"}
    status = json.dumps({"status": {"phase": "Pending"}})
    kubectl("patch", "llmtask", "reported", "--subresource=status", "--type=merge", "-p", status)
    kubectl(*write)
    kubectl(
        "patch",
        "llmtask",
        "reported",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": {"run": run}}),
    )

    assert "the server rejected our request due to an error in our request" in kubectl.refusal(*write)


def test_the_writer_of_a_status_is_known_for_the_status_as_a_whole(kubectl: Kubectl) -> None:
    """The operator relies on it: whatever another client changes or removes, that client is the writer."""
    kubectl("create", "-f", "-", body={**make_served(prompt="Which?"), "metadata": {"name": "written"}})
    for manager, status in (("perllm", {"phase": "Pending", "message": "x"}), ("another", {"message": None})):
        patch = ("--type=merge", "-p", json.dumps({"status": status}), f"--field-manager={manager}")
        kubectl("patch", "llmtask", "written", "--subresource=status", *patch)

    written = json.loads(kubectl("get", "llmtask", "written", "--output=json", "--show-managed-fields"))
    entries = [one for one in written["metadata"]["managedFields"] if one.get("subresource") == "status"]
    assert [(one["manager"], one["fieldsV1"]) for one in entries] == [("another", {"f:status": {}})]


def make_template(*, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    template: dict[str, Any] = {"spec": {"containers": [{"name": "main", "image": "llm"}], **spec}}
    return template if metadata is None else {**template, "metadata": metadata}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (make_template(metadata=["app"]), "spec.template.metadata in body must be of type object"),
        (make_template(metadata={"labels": ["app", "web"]}), "metadata.labels in body must be of type object"),
        (make_template(metadata={"labels": "app=web"}), "metadata.labels in body must be of type object"),
        (make_template(metadata={"labels": {"app": 1}}), "metadata.labels.app in body must be of type string"),
        (
            make_template(metadata={"labels": {"app": "x" * 64}}),
            "metadata.labels.app: Too long: may not be more than 63",
        ),
        (make_template(metadata={"labels": {"app": "not a value"}}), "metadata.labels.app in body should match"),
        (
            make_template(metadata={"labels": {f"l{number}": "" for number in range(65)}}),
            "metadata.labels: Too many: 65: must have at most 64 items",
        ),
        (
            make_template(metadata={"labels": {"perllm.io/task": "other"}}),
            "keys of spec.template.metadata.labels must have at most 317 characters and not begin with perllm.io/",
        ),
        (
            make_template(metadata={"annotations": {"x" * 318: ""}}),
            "keys of spec.template.metadata.annotations must have at most 317 characters",
        ),
        (
            make_template(nodeName="edge-1"),
            "spec.template.spec.nodeName must be absent: PerLLM chooses the node; nodeSelector and affinity narrow",
        ),
        (make_template(restartPolicy="Always"), 'Unsupported value: "Always": supported values: "Never", "OnFailure"'),
        (make_template(containers=[{"image": "llm"}]), "spec.template.spec.containers[0].name: Required value"),
        (make_template(initContainers="none"), "spec.template.spec.initContainers in body must be of type array"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_template_that_perllm_could_not_read_is_denied(tasks: TaskApi, template: dict[str, Any], message: str) -> None:
    refusal = tasks.refusal(make_task(template=template))

    assert message in refusal


@pytest.mark.parametrize(
    "template",
    [
        make_template(metadata={"labels": None, "annotations": None, "creationTimestamp": None}),
        make_template(nodeName=None, nodeSelector=None, tolerations=None, initContainers=None),
        make_template(fieldOfNextYear={"deep": [1]}, containers=[{"name": "main", "alsoNew": True}]),
        make_template(metadata={"annotations": {"lab.perllm.io/note": "x" * 100_000}}),
        make_template(containers=[{"name": "main", "resources": {"limits": {"cpu": 0.5, "nvidia.com/gpu": 1}}}]),
    ],
    ids=["null metadata", "null spec", "new fields", "long annotation", "amounts"],
)
def test_template_with_nulls_and_fields_of_other_versions_is_kept(tasks: TaskApi, template: dict[str, Any]) -> None:
    assert tasks.create(make_task(template=template))["spec"]["template"] == template


@needs_kubernetes(33, "a status is written whatever rules the spec breaks")
def test_status_of_an_older_task_that_is_invalid_now_can_be_written(kubectl: Kubectl) -> None:
    """So that it can say what is wrong with the task."""
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/template"
    opened = [
        {"op": "replace", "path": path, "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    ]
    old = make_task("old", template=make_template(metadata={"labels": {"perllm.io/task": "x" * 64}}, nodeName="edge-1"))

    kubectl("patch", "crd", "llminferencetasks.perllm.io", "--type=json", "--patch", json.dumps(opened))
    wait_until(lambda: kubectl.run("apply", "-f", "-", body=old).returncode == 0)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    wait_until(
        lambda: (
            kubectl.run("create", "--dry-run=server", "-f", "-", body={**old, "metadata": {"name": "new"}}).returncode
        )
    )
    kubectl(
        "patch",
        "llmtask",
        "old",
        "--subresource=status",
        "--type=merge",
        "--patch",
        '{"status": {"phase": "Rejected"}}',
    )

    assert json.loads(kubectl("get", "llmtask", "old", "--output=json"))["status"]["phase"] == "Rejected"


@pytest.fixture(scope="module")
def _two_tasks(kubectl: Kubectl) -> None:
    for name, model, status in (
        ("chosen", "chosen", {"phase": "Running", "nodeName": "edge-1"}),
        ("not-chosen", "other", {"phase": "Pending"}),
    ):
        kubectl("apply", "-f", "-", body=make_task(name, model=model))
        patch = json.dumps({"status": status})
        kubectl("patch", "llmtask", name, "--subresource=status", "--type=merge", "--patch", patch)


@pytest.mark.usefixtures("_two_tasks")
@pytest.mark.parametrize("field", ["status.phase=Running", "status.nodeName=edge-1", "spec.model=chosen"])
def test_tasks_can_be_selected_by_phase_node_and_model(kubectl: Kubectl, field: str) -> None:
    assert kubectl("get", "llmtasks", "--field-selector", field, "--output=name").split() == [
        "llminferencetask.perllm.io/chosen"
    ]


def test_name_that_is_not_a_label_value_is_denied(tasks: TaskApi) -> None:
    refusal = tasks.refusal(make_task("x" * 64))

    assert "metadata.name must have at most 63 characters: its pods carry it as a label" in refusal


@pytest.mark.parametrize(("field", "value"), IMMUTABLE.items())
def test_fields_that_decisions_depend_on_are_immutable(tasks: TaskApi, field: str, value: object) -> None:
    tasks.keep(make_task("immutable"))

    refusal = tasks.refusal_of_change("immutable", {field: value})

    assert f"spec.{field} is immutable: create a new task instead" in refusal


def test_the_template_is_immutable(tasks: TaskApi) -> None:
    tasks.keep(make_task("immutable"))
    template = make_task()["spec"]["template"]
    template["spec"]["containers"][0]["env"][0]["value"] = "c"

    assert "spec.template is immutable" in tasks.refusal_of_change("immutable", {"template": template})


@pytest.mark.parametrize(
    ("given", "changes"),
    [({}, OPTIONAL), (OPTIONAL, dict.fromkeys(OPTIONAL)), (OPTIONAL, OTHERS)],
    ids=["added", "removed", "changed"],
)
def test_optional_fields_that_decisions_depend_on_are_immutable(
    tasks: TaskApi, given: dict[str, Any], changes: dict[str, Any]
) -> None:
    name = "full" if given else "bare"
    tasks.keep({**make_served(prompt="Which?", **given), "metadata": {"name": name}})

    refusal = tasks.refusal_of_change(name, changes)

    assert [field for field in OPTIONAL if f"spec.{field} is immutable" not in refusal] == []


@pytest.mark.parametrize(
    ("way", "work"),
    [
        ("messages", {"messages": [{"role": "user", "content": "Which?"}]}),
        ("prompts", {"prompts": ["Which?"]}),
        ("template", make_task()["spec"]),
    ],
)
@pytest.mark.parametrize("prompt", [{}, {"prompt": None}], ids=["also", "instead"])
def test_work_cannot_be_given_in_another_way_later(
    tasks: TaskApi, way: str, work: dict[str, Any], prompt: dict[str, Any]
) -> None:
    tasks.keep({**make_served(prompt="Which?"), "metadata": {"name": "given"}})

    refusal = tasks.refusal_of_change("given", prompt | work)

    assert f"spec.{way} is immutable" in refusal
    assert ("spec.prompt is immutable" in refusal) == bool(prompt)


def test_other_fields_can_be_changed(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", body=make_task("mutable"))

    kubectl(
        "apply",
        "-f",
        "-",
        body=make_task("mutable", priority=5, retries=2, ttlAfterFinished="1h", onDeadlineMissed="Terminate"),
    )


def test_columns_show_the_course_of_a_task(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", body=make_task("columns"))
    status = {
        "phase": "Succeeded",
        "nodeName": "edge-1",
        "tier": "edge",
        "receivedTime": "2026-01-02T03:04:05.678901Z",
        "deadlineMet": True,
        "observed": {"latency": 12.345, "energyJoules": 678.9},
    }
    kubectl("patch", "llmtask", "columns", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    header, row = kubectl("get", "llmtask", "columns").splitlines()

    assert header.split() == [
        "NAME",
        "PHASE",
        "MODEL",
        "NODE",
        "TIER",
        "DEADLINE",
        "LATENCY(S)",
        "MET",
        "ENERGY(J)",
        "AGE",
    ]
    assert row.split()[:-1] == ["columns", "Succeeded", "llama", "edge-1", "edge", "30s", "12.345", "true", "678.9"]


def test_node_profile_keeps_learned_state_and_shows_figures(kubectl: Kubectl) -> None:
    profile = {"apiVersion": "perllm.io/v1alpha1", "kind": "LLMNodeProfile", "metadata": {"name": "edge-1"}}
    state = {"precision": [[1.0, 0.5], [0.5, 2.0]], "anything": {"deep": [None, "x"]}}
    status = {
        "gpuType": "Jetson-AGX-Orin",
        "tier": "edge",
        "outcomes": 7,
        "meanLatencySeconds": 3.5,
        "meanEnergyJoules": 90,
        "models": [{"model": "llama", "count": 7, "state": state}],
        "recent": ["a", "b"],
    }
    kubectl("apply", "-f", "-", body=profile)
    kubectl("patch", "llmnode", "edge-1", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    header, row = kubectl("get", "llmnode", "edge-1").splitlines()
    kept = json.loads(kubectl("get", "llmnode", "edge-1", "--output=json"))["status"]
    kubectl("delete", "llmnode", "edge-1")

    learned, served = ["OUTCOMES", "LATENCY(S)", "ENERGY(J)"], ["SERVES", "BUSY", "FOREIGN"]
    assert header.split() == ["NAME", "GPU", "TIER", "CIRCUIT", *learned, *served, "AGE"]
    assert row.split()[:-1] == ["edge-1", "Jetson-AGX-Orin", "edge", "7", "3.5", "90"]
    assert kept["models"][0]["state"] == state


def test_kubectl_explains_every_field(kubectl: Kubectl) -> None:
    assert "from the creation of the task to its completion" in " ".join(
        kubectl("explain", "llmtask.spec.deadline").split()
    )
    assert "Joules that the task used" in kubectl("explain", "llmtask.status.observed.energyJoules")


def test_all_objects_of_the_project_are_one_category(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", body=make_task("category"))

    assert "llminferencetask.perllm.io/category" in kubectl("get", "perllm", "--output=name")
