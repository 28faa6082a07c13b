"""Whether the operator's account may do what it has to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perllm.cluster.rbac import Rule, lease_rules, namespace_rules, node_rules, task_rules
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
class Access:
    """One thing to do.

    Attributes:
        verb: what to do.
        group: API group of the resource.
        resource: with its subresource, for example pods/binding.
        namespace: where; empty for all of them, or for a resource of the cluster.
        name: of the only object it is about; empty for all.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        """What it is done to, in words."""
        return self.resource + (f" in {self.namespace}" if self.namespace else "")


def list_needed(config: Config, namespace: str) -> list[Access]:
    """Return all that an operator does that is configured so and runs in `namespace`."""
    needed = list(_expand(node_rules()))
    for place in config.namespaces or ("",):
        needed += _expand(task_rules(), place)
    if not config.namespaces:
        needed += _expand(namespace_rules())
    if config.leader_lease:
        needed += _expand(lease_rules(config.leader_lease), namespace)
    return needed


def build_review(access: Access, account: Account | None) -> tuple[str, dict[str, Any]]:
    """Return path and body of the question whether an account may do something; None for whoever asks."""
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
    """Judge which of the things needed are allowed."""
    refused: dict[str, list[str]] = {}
    for access, is_allowed in answers.items():
        if not is_allowed:
            refused.setdefault(access.target, []).append(access.verb)
    if not refused:
        return ok(RIGHTS, f"{who} may do all {len(answers)} things that it has to")
    lacking = ", ".join("/".join(verbs) + f" {target}" for target, verbs in refused.items())
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
