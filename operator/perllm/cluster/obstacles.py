"""Watchable causes for which the API server denies pods in a namespace.

These are quotas, and the labels of the namespace, which Pod Security and webhooks select it by.
"""

from perllm.cluster.client import Object


def is_quota_changed(old: Object | None, new: Object | None) -> bool:
    """Whether a quota may now admit pods that it denied before; a new quota never does."""
    if old is None or new is None:
        return new is None
    return any(old.get(part) != new.get(part) for part in ("spec", "status"))


def is_relabelled(old: Object | None, new: Object | None) -> bool:
    """Whether other admission rules may now apply in a namespace."""
    return old is not None and new is not None and old["metadata"].get("labels") != new["metadata"].get("labels")
