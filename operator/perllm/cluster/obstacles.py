"""Watchable causes for which the API server denies pods in a namespace.

These are quotas, and the labels of the namespace, which Pod Security and webhooks select it by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from perllm.cluster.client import Object


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A quota, or a namespace with its labels.

    Attributes:
        namespace: the namespace.
        content: of which a change may have the API server admit pods that it denied before.
    """

    namespace: str
    content: Mapping[str, object]


def read_quota(item: Object) -> Obstacle:
    """Return a quota with its limits and their use."""
    return Obstacle(item["metadata"]["namespace"], {part: item.get(part) for part in ("spec", "status")})


def read_namespace(item: Object) -> Obstacle:
    """Return a namespace with its labels."""
    return Obstacle(item["metadata"]["name"], item["metadata"].get("labels") or {})
