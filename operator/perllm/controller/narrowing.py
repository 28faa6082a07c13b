"""Has a pod name the nodes that it may be placed on, so that kube-scheduler examines these only.

If every term of the required node affinity holds for one node by name (matchFields metadata.name), kube-scheduler's
plugin NodeAffinity returns these names before any node is filtered (PreFilterResult). So the cost of a pod does not
grow with the cluster. The API server admits one name per term.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from perllm.cluster.rbac import KUEUE_GROUP
from perllm.cluster.shapes import as_object

MAX_TERMS = 32
"""Terms of an affinity; kube-scheduler compares each with each node that is named."""

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
TERMS = "nodeSelectorTerms"

Term = dict[str, Any]


def narrow(pod_spec: dict[str, Any], labels: Iterable[str], nodes: Sequence[str]) -> dict[str, Any] | None:
    """Return the spec of a pod with these labels that holds on these nodes only, where it held before.

    None if it cannot be narrowed: if each of its own terms with each name are too many, if it is malformed, which the
    API server explains, or if it is gated, or will be by Kueue: by the time its gates are removed other nodes may be
    the best ones, and one that replaces it would have to wait for quota again.
    """
    terms = _read_terms(pod_spec.get("affinity"))
    is_gated = bool(pod_spec.get("schedulingGates")) or any(key.startswith(f"{KUEUE_GROUP}/") for key in labels)
    if is_gated or not 0 < len(terms) * len(nodes) <= MAX_TERMS:
        return None
    affinity = as_object(pod_spec.get("affinity"))
    node_affinity = as_object(affinity.get("nodeAffinity"))
    required = {TERMS: [_add_name(term, node) for term in terms for node in nodes]}
    return {**pod_spec, "affinity": {**affinity, "nodeAffinity": {**node_affinity, REQUIRED: required}}}


def _read_terms(affinity: object) -> list[Term]:
    """Return the terms of which one has to hold: one that always does if there are none, nothing if one is malformed.

    A term without requirements never holds, so it is left out; with a name it would.
    """
    part = affinity
    for key in ("nodeAffinity", REQUIRED, TERMS):
        if not part:
            return [{}]
        if not isinstance(part, dict):
            return []
        part = part.get(key)
    if not isinstance(part, list) or not all(map(_is_known, part)):
        return []
    return [term for term in part if any(term.values())]


def _is_known(term: object) -> bool:
    return isinstance(term, dict) and isinstance(term.get("matchFields") or [], list)


def _add_name(term: Term, node: str) -> Term:
    name = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {**term, "matchFields": [*(term.get("matchFields") or []), name]}
