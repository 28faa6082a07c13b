from perllm.api.crd import task_crd
from perllm.cluster.agent_policy import AGENT_FIELDS, object_policy_spec, report_policy_spec
from perllm.cluster.rbac import agent_own_lease_rules, agent_rules, agent_server_rules, agent_task_rules

USER = "system:serviceaccount:home:agent"


def test_every_field_of_the_status_but_those_of_the_agent_is_kept() -> None:
    schema = task_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = set(schema["properties"]["status"]["properties"])
    kept = {part.split(" == ")[0] for part in report_policy_spec(USER)["validations"][-1]["expression"].split(" && ")}

    assert fields > AGENT_FIELDS
    assert {one for one in kept if ".status." in one} == {f"object.status.?{name}" for name in fields - AGENT_FIELDS}


def test_every_right_of_an_agent_to_write_is_subject_to_a_policy() -> None:
    rules = agent_rules() + agent_task_rules() + agent_server_rules() + agent_own_lease_rules()
    written = {part for rule in rules if {"create", "update", "patch"} & {*rule["verbs"]} for part in rule["resources"]}
    policies = report_policy_spec(USER), object_policy_spec(USER)
    checked = {
        resource
        for policy in policies
        for rule in policy["matchConstraints"]["resourceRules"]
        for resource in rule["resources"]
    }

    assert written
    assert written <= checked


def test_policies_deny_what_cannot_be_evaluated_and_concern_no_other_account() -> None:
    for policy in (report_policy_spec(USER), object_policy_spec(USER)):
        assert policy["failurePolicy"] == "Fail"
        assert [one["expression"] for one in policy["matchConditions"]] == [f"request.userInfo.username == '{USER}'"]
