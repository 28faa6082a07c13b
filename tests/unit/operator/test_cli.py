import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

import perllm_lab.cli
from perllm.cli import main


def perllm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["crds"], ["rbac"], ["admission-policy"], ["release"], ["scheduler-config"], ["doctor"], ["submit"]],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = perllm(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("group", [main, perllm_lab.cli.main])
def test_a_terminal_gets_a_question_mark_for_what_it_cannot_show(
    group: click.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(group.commands, "answer", click.Command("answer", callback=lambda: click.echo("a 😀 é")))
    result = CliRunner(charset="latin-1").invoke(group, ["answer"])
    assert (result.exit_code, result.output) == (0, "a ? é\n")


def test_a_command_loads_what_it_does_only_when_it_runs() -> None:
    """Of a plugin that people wait for; what would take a second is not loaded to show options."""
    heavy = {"aiohttp", "kopf", "kubernetes", "numpy", "prometheus_api_client", "prometheus_client", "pydantic"}
    script = f"import sys, perllm.cli; print(*{heavy} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_crds_print_all_resources_as_valid_yaml() -> None:
    documents = list(yaml.safe_load_all(perllm("crds").stdout))
    assert {one["kind"] for one in documents} == {"CustomResourceDefinition"}
    assert {one["metadata"]["name"] for one in documents} == {
        "llminferencetasks.perllm.io",
        "llmnodeprofiles.perllm.io",
        "llmnodeservers.perllm.io",
        "llmtaskanswers.perllm.io",
    }


def test_crds_can_be_written_to_files(tmp_path: Path) -> None:
    assert perllm("crds", "--output", tmp_path / "new").exit_code == 0
    files = sorted((tmp_path / "new").iterdir())
    assert len(files) == 4
    assert all(yaml.safe_load(file.read_text())["kind"] == "CustomResourceDefinition" for file in files)


def test_rbac_is_for_the_service_accounts_and_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text("namespaces: [a]\nleader_lease: turns\n")
    output = perllm("rbac", "--config", file, "--namespace", "place", "--service-account", "me").stdout
    documents = list(yaml.safe_load_all(output))
    bindings = [one for one in documents if one["kind"].endswith("Binding")]
    holders = {one["metadata"]["name"]: one["subjects"][0] for one in bindings}
    assert {one["namespace"] for one in holders.values()} == {"place"}
    assert {role for role, one in holders.items() if one["name"] == "me"} == {
        "perllm-nodes",
        "perllm-tasks",
        "perllm-lease",
    }
    assert {role for role, one in holders.items() if one["name"] == "perllm-scheduler"} == {
        "perllm-kube-scheduler",
        "perllm-volume-scheduler",
        "perllm-scheduler-lease",
    }
    assert {one["metadata"].get("namespace") for one in documents} == {None, "a", "place"}


def test_with_a_namespace_for_leases_of_agents_their_roles_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text("agents: {lease_namespace: leases}\n")
    output = perllm("rbac", "--config", file, "--agent-service-account", "mine", "--server-namespace", "servers").stdout
    bindings = [one for one in yaml.safe_load_all(output) if one["kind"].endswith("Binding")]
    places = {
        one["metadata"]["name"]: one["metadata"].get("namespace")
        for one in bindings
        if one["subjects"][0]["name"] == "mine"
    }
    assert places == {
        "perllm-agent": None,
        "perllm-agent-tasks": None,
        "perllm-agent-servers": "servers",
        "perllm-agent-own-leases": "leases",
    }


def test_the_policies_about_agents_are_for_their_account() -> None:
    output = perllm("admission-policy", "--agent-service-account", "mine").stdout
    policies = [one for one in yaml.safe_load_all(output) if one["kind"] == "ValidatingAdmissionPolicy"]
    concerned = [one["metadata"]["name"] for one in policies if "perllm-system:mine'" in str(one["spec"])]
    assert concerned == ["perllm-agent-reports", "perllm-agent-objects"]


def test_the_policies_come_with_their_bindings_and_one_is_for_the_service_account() -> None:
    output = perllm("admission-policy", "--namespace", "place", "--service-account", "me").stdout
    authors, its_binding, releases, binding, *_ = yaml.safe_load_all(output)
    assert authors["kind"] == releases["kind"] == "ValidatingAdmissionPolicy"
    assert its_binding["spec"] == {"policyName": authors["metadata"]["name"], "validationActions": ["Deny"]}
    assert binding["spec"] == {"policyName": releases["metadata"]["name"], "validationActions": ["Deny"]}
    assert "'system:serviceaccount:place:me'" in releases["spec"]["matchConditions"][0]["expression"]


def test_a_deployment_to_stop_is_named_with_its_namespace() -> None:
    result = perllm("release", "--stop", "perllm")
    assert result.exit_code == 2
    assert "must be NAMESPACE/DEPLOYMENT" in result.stderr


def test_the_scheduler_is_configured_for_the_operator_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text("server: {extender_port: 4711}\nscheduler_name: mine\n")
    configuration = yaml.safe_load(perllm("scheduler-config", "--config", file).stdout)
    assert configuration["kind"] == "KubeSchedulerConfiguration"
    assert configuration["extenders"][0]["urlPrefix"] == "http://127.0.0.1:4711"
    assert configuration["profiles"][0]["schedulerName"] == "mine"
    assert configuration["leaderElection"] == {"leaderElect": False}


def test_the_schedulers_of_several_replicas_contend_for_the_lease_that_their_operators_follow(tmp_path: Path) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text("leader_lease: turns\n")
    configuration = yaml.safe_load(perllm("scheduler-config", "--config", file, "--namespace", "place").stdout)
    election = configuration["leaderElection"]
    assert (election["leaderElect"], election["resourceNamespace"], election["resourceName"]) == (
        True,
        "place",
        "turns",
    )


@pytest.mark.parametrize("command", ["run", "scheduler-config", "rbac", "doctor"])
def test_a_missing_configuration_file_is_named(tmp_path: Path, command: str) -> None:
    result = perllm(command, "--config", tmp_path / "absent.yaml")
    assert result.exit_code == 1
    assert "absent.yaml cannot be read" in result.stderr
    assert "Traceback" not in result.output


def test_missing_credentials_say_what_to_pass(tmp_path: Path) -> None:
    result = perllm("run", "--kubeconfig", tmp_path / "absent")
    assert result.exit_code == 1
    assert "Pass --kubeconfig FILE" in result.stderr


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "telemetry: {queries: {transmitted: 'bytes_sent[{window}]'}}",
            "config.telemetry.queries.transmitted is no longer used: remove it",
        ),
        ("policy: {name: net-hits}", "config.policy.name is net-hits, which is called cs-ucb now: rename it"),
        ("policy: {net_hits: {price: 9}}", "config.policy.net_hits is called config.policy.cs_ucb now: rename it"),
    ],
)
def test_a_deprecated_setting_is_accepted_with_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    file = tmp_path / "perllm.yaml"
    file.write_text(text)
    result = perllm("run", "--config", file, "--kubeconfig", tmp_path / "absent")
    assert warning in result.stderr


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = perllm("crds", "--output", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "Error: " in result.stderr


def test_the_version_is_told() -> None:
    assert perllm("--version").exit_code == 0
