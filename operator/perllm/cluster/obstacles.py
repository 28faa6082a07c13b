"""What keeps pods out of a namespace, as far as it can be watched.

Quotas, and the namespace's labels, by which Pod Security and webhooks choose it.
"""

from perllm.cluster.client import Object


def is_quota_changed(old: Object | None, new: Object | None) -> bool:
    """Whether a quota may let pods in that it did not before; a new one never does."""
    if old is None or new is None:
        return new is None
    return any(old.get(part) != new.get(part) for part in ("spec", "status"))


def is_relabelled(old: Object | None, new: Object | None) -> bool:
    """Whether other rules may hold in a namespace from now on."""
    return old is not None and new is not None and old["metadata"].get("labels") != new["metadata"].get("labels")
