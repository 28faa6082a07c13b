"""References by which an object names its owner, with which it is deleted."""

from typing import Any

from perllm.api import names

Reference = dict[str, Any]


def refer_to_task(name: str, uid: str) -> Reference:
    """Return the reference to a task."""
    return {"apiVersion": names.API_VERSION, "kind": names.TASK_KIND, "name": name, "uid": uid}


def refer_to_controlling_task(name: str, uid: str) -> Reference:
    """Return the reference to a task as the controller of the object; its deletion does not wait for the object's."""
    return {**refer_to_task(name, uid), "controller": True, "blockOwnerDeletion": False}


def refer_to_node(name: str, uid: str) -> Reference:
    """Return the reference to a node."""
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
