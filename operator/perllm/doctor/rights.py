"""Checks whether the operator's account has all rights that it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perllm.cluster.rbac import (
    Rule,
    agent_lease_rules,
    claim_rules,
    device_rules,
    lease_rules,
    namespace_rules,
    node_rules,
    quota_rules,
    server_rules,
    shadow_rules,
    task_rules,
    workload_rules,
)
from perllm.config import Config
from perllm.doctor.finding import Finding, fail, ok

RIGHTS = "rights"

SELF_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Account:
    """A service account."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """Its name as a user."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def groups(self) -> list[str]:
        """The groups that it belongs to."""
        return ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]


@dataclass(frozen=True, slots=True)
class OutsideUser:
    """The user of an operator that runs outside the cluster, as in a lab."""

    user: str

    @property
    def groups(self) -> list[str]:
        """The groups that it belongs to."""
        return ["system:authenticated"]


@dataclass(frozen=True, slots=True)
class Access:
    """One kind of access that the operator needs.

    Attributes:
        verb: verb of the request.
        group: API group of the resource.
        resource: resource with its subresource, for example pods/binding.
        namespace: namespace; empty for all of them, or for a cluster-scoped resource.
        name: name of the object; empty for all.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        """Resource and namespace, in words."""
        return self.resource + (f" in {self.namespace}" if self.namespace else "")


def list_needed(config: Config, namespace: str) -> list[Access]:
    """Return all access that an operator with this configuration needs when it runs in `namespace`."""
    needed = list(_expand(node_rules()))
    if config.nodes.devices:
        needed += _expand(device_rules())
    if config.mode == "shadow":
        return needed + [access for place in config.namespaces or ("",) for access in _expand(shadow_rules(), place)]
    for place in config.namespaces or ("",):
        needed += _expand(task_rules(), place)
    if not config.namespaces:
        needed += _expand(namespace_rules())
    if config.nodes.devices:
        needed += _expand(claim_rules())
    if config.agents.lease_namespace:
        needed += _expand(server_rules())
        needed += _expand(agent_lease_rules(), config.agents.lease_namespace)
    if config.kueue.enabled:
        needed += _expand(quota_rules())
        needed += [access for place in config.namespaces or ("",) for access in _expand(workload_rules(), place)]
    if config.leader_lease:
        needed += _expand(lease_rules(config.leader_lease), namespace)
    return needed


def build_review(access: Access, account: Account | OutsideUser | None) -> tuple[str, dict[str, Any]]:
    """Return path and body of an access review for an account; None for the account that sends it."""
    resource, _, subresource = access.resource.partition("/")
    attributes = {
        "verb": access.verb,
        "group": access.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": access.namespace,
        "name": access.name,
    }
    spec: dict[str, Any] = {"resourceAttributes": {key: value for key, value in attributes.items() if value}}
    if account is None:
        return SELF_REVIEWS, {"spec": spec}
    return REVIEWS, {"spec": {**spec, "user": account.user, "groups": account.groups}}


def check_rights(answers: Mapping[Access, bool], who: str) -> Finding:
    """Check which of the needed rights are granted."""
    denied: dict[str, list[str]] = {}
    for access, is_allowed in answers.items():
        if not is_allowed:
            denied.setdefault(access.target, []).append(access.verb)
    if not denied:
        return ok(RIGHTS, f"{who} has all {len(answers)} rights that it needs")
    lacking = ", ".join("/".join(verbs) + f" {target}" for target, verbs in denied.items())
    return fail(
        RIGHTS,
        f"{who} may not {lacking}",
        "helm upgrade with rbac.create=true, or: perllm rbac --config FILE | kubectl apply -f -",
    )


def _expand(rules: Sequence[Rule], namespace: str = "") -> Iterator[Access]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        yield Access(verb, group, resource, namespace, name)
