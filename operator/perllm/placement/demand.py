"""What a pod asks of its node: slots, and rules about the node's labels and taints.

Read from a template as its author wrote it: nothing in here raises. What cannot be parsed counts as not requested,
since the API server denies such a pod and says why, and kube-scheduler has the last word in any case.

    resource    the first GPU resource that it asks for, in the order of the configuration
    slots       requests of that resource (limits where there are none), as kube-scheduler adds them up:
                max(containers + sidecars, any init container + the sidecars started before it); at least 1
                without such a resource, the devices that it claims (claims.py)
    cpu, memory what the pod requests as a whole (spec.resources), or else added up likewise; a container that requests
                none counts with what kube-scheduler scores it with
    selector    nodeSelector
    terms       requiredDuringSchedulingIgnoredDuringExecution of the node affinity; one of them has to hold
    tolerations of taints

Ignored: affinity to other pods, topology, other resources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from perllm.cluster.slots import find_resource
from perllm.placement.claims import NO_DEVICES
from perllm.placement.pod_requests import (
    add_up,
    as_mapping,
    list_extended_resources,
    list_mappings,
    list_requested_resources,
)
from perllm.text import clean_line

MAX_SLOTS = 1e6
"""More than any node has."""

USUAL_CPU_CORES = 0.1
USUAL_MEMORY_BYTES = 200.0 * 2**20
"""What kube-scheduler scores a container with that requests nothing (DefaultMilliCPURequest, DefaultMemoryRequest)."""

MAX_RULES = 32
"""Selectors, requirements and tolerations that are examined; a pod with more is left to kube-scheduler."""

MAX_VALUES = 1000
"""Values of one requirement, likewise."""

MAX_DESCRIPTION = 300


class LabelOperator(StrEnum):
    """How a requirement compares a label with its values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GREATER = "Gt"
    LESS = "Lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement of a label of the node, or of its name."""

    key: str
    operator: LabelOperator
    values: frozenset[str] = frozenset()
    is_about_name: bool = False

    def __str__(self) -> str:
        values = f" ({', '.join(sorted(self.values))})" if self.values else ""
        return f"{self.key} {self.operator}{values}"


Term = tuple[Requirement, ...]
"""Requirements that have to hold together; an empty one never holds."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """Taints that a pod tolerates; an empty key or effect stands for all, a value of None for any."""

    key: str
    value: str | None
    effect: str


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What must hold of a node for a pod to be placed there.

    Attributes:
        selector: labels the node has to carry.
        terms: alternatives of the node affinity; None without one.
        tolerations: of taints.
        resources: extended resources that the pod asks for. Taints named after one of them may be tolerated by the time
            the pod exists: the API server's plugin ExtendedResourceToleration, where enabled, adds the toleration.
        tolerates_lasting: whether the pod will tolerate all taints of the fleet that last.
    """

    selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[Term, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()
    resources: frozenset[str] = frozenset()
    tolerates_lasting: bool = False

    def describe(self) -> str:
        """Return the rules about labels in one line."""
        parts = [f"nodeSelector {key}={value}" for key, value in self.selector]
        if self.terms is not None:
            parts.append("node affinity " + " or ".join(" and ".join(map(str, term)) for term in self.terms))
        return clean_line(", ".join(parts), MAX_DESCRIPTION)


ANYWHERE = NodeRules()


@dataclass(frozen=True, slots=True)
class PodDemand:
    """What a pod asks of its node.

    Attributes:
        slots: slots it takes.
        rules: what must hold of the node.
        resource: the GPU resource that it asks for; empty if it asks for none, and takes a slot nevertheless.
        cpu_cores: processors that it requests.
        memory_bytes: memory that it requests.
    """

    slots: float = 1.0
    rules: NodeRules = ANYWHERE
    resource: str = ""
    cpu_cores: float = USUAL_CPU_CORES
    memory_bytes: float = USUAL_MEMORY_BYTES


ONE_SLOT = PodDemand()
NO_POD = PodDemand(slots=0.0)
"""The demand of a task that runs as a request: a slot of a model server, not one that pods could use."""


RUNNER = PodDemand(rules=NodeRules(tolerates_lasting=True))
"""The demand of a runner pod: it asks for the resource that its node has."""


def add_rules(demand: PodDemand, pod_spec: object) -> PodDemand:
    """Return a demand with the nodeSelector and the tolerations of a further part of the pod's spec."""
    own, added = demand.rules, _read_rules(as_mapping(pod_spec))
    selector, tolerations = tuple(sorted({*own.selector, *added.selector})), (*own.tolerations, *added.tolerations)
    return replace(demand, rules=replace(own, selector=selector, tolerations=tolerations))


def read_demand(pod_spec: object, gpu_resources: Sequence[str], claimed: tuple[str, float] = NO_DEVICES) -> PodDemand:
    """Return what a pod with this spec asks of its node, in units of one slot for each of a resource.

    Args:
        pod_spec: the spec.
        gpu_resources: patterns of the resources that slots are units of.
        claimed: resource and number of the devices that it claims.
    """
    spec = as_mapping(pod_spec)
    resource = find_resource(list_requested_resources(spec), gpu_resources)
    asked = add_up(spec, resource)
    if not resource:
        resource, asked = claimed
    return PodDemand(
        slots=min(max(asked, 1.0), MAX_SLOTS),
        rules=_read_rules(spec),
        resource=resource,
        cpu_cores=add_up(spec, "cpu", USUAL_CPU_CORES),
        memory_bytes=add_up(spec, "memory", USUAL_MEMORY_BYTES),
    )


def _read_rules(spec: Mapping[str, Any]) -> NodeRules:
    selector = _read_selector(spec)
    terms = _read_terms(spec)
    tolerations = tuple(map(_read_toleration, list_mappings(spec.get("tolerations"))))
    if len(selector) + sum(map(len, terms or ())) + len(tolerations) > MAX_RULES:
        return NodeRules(tolerations=(Toleration("", None, ""),))
    return NodeRules(selector, terms, tolerations, frozenset(list_extended_resources(spec)))


def _read_selector(spec: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    labels = as_mapping(spec.get("nodeSelector"))
    is_valid = all(isinstance(text, str) for label in labels.items() for text in label)
    return tuple(sorted(labels.items())) if is_valid else ()


def _read_terms(spec: Mapping[str, Any]) -> tuple[Term, ...] | None:
    affinity = as_mapping(as_mapping(spec.get("affinity")).get("nodeAffinity"))
    terms = as_mapping(affinity.get("requiredDuringSchedulingIgnoredDuringExecution")).get("nodeSelectorTerms")
    if not isinstance(terms, list) or not terms or len(terms) > MAX_RULES:
        return None
    try:
        return tuple(_read_term(term) for term in terms)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _read_term(term: Mapping[str, Any]) -> Term:
    labels = tuple(_read_requirement(one) for one in term.get("matchExpressions") or ())
    fields = tuple(_read_requirement(one, is_about_name=True) for one in term.get("matchFields") or ())
    return labels + fields


def _read_requirement(one: Mapping[str, Any], *, is_about_name: bool = False) -> Requirement:
    """Return a requirement.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the API server would deny it.
    """
    values: Sequence[str] = one.get("values") or ()
    key, operator = one["key"], LabelOperator(one["operator"])
    if not isinstance(key, str) or len(values) > MAX_VALUES or not all(isinstance(value, str) for value in values):
        raise ValueError(f"not a requirement: {one}")
    if is_about_name and key != "metadata.name":
        raise ValueError(f"not a field of a node that can be selected by: {key}")
    if operator in (LabelOperator.GREATER, LabelOperator.LESS):
        [bound] = values
        int(bound)
    return Requirement(key, operator, frozenset(values), is_about_name)


def _read_toleration(one: Mapping[str, Any]) -> Toleration:
    """Return a toleration; one that compares otherwise than by Equal tolerates any value."""
    is_equal = one.get("operator") in (None, "", "Equal")
    return Toleration(
        str(one.get("key") or ""), str(one.get("value") or "") if is_equal else None, str(one.get("effect") or "")
    )
