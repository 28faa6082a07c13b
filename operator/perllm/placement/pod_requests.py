"""What the containers of a pod request together, as kube-scheduler adds it up.

Read as its author wrote it: nothing in here raises, and what cannot be understood counts as not requested.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perllm.api.quantities import parse_amount

MAX_AMOUNT = 1e18


def add_up(spec: Mapping[str, Any], resource: str, usual: float = 0.0) -> float:
    """Return how much of a resource a pod requests; a container that does not say takes the usual amount."""
    whole = _find_asked(spec, resource)
    if whole is not None:
        return whole
    sidecars = peak = 0.0
    for container in list_mappings(spec.get("initContainers")):
        asked = _asked(container, resource, usual)
        if container.get("restartPolicy") == "Always":
            sidecars += asked
            asked = 0.0
        peak = max(peak, sidecars + asked)
    total = sidecars + sum(_asked(container, resource, usual) for container in list_mappings(spec.get("containers")))
    return max(total, peak)


def list_extended_resources(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the extended resources that containers name, such as nvidia.com/gpu."""
    return (name for name, _ in _list_extended(spec))


def list_requested_resources(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield those of them that containers request some of: a template for several vendors may name one with zero."""
    return (name for name, amount in _list_extended(spec) if _read_amount(amount) > 0.0)


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def list_mappings(values: object) -> Iterable[Mapping[str, Any]]:
    """Return the mappings in a list; none for anything else."""
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []


def _list_extended(spec: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for part in ("initContainers", "containers"):
        for container in list_mappings(spec.get(part)):
            resources = as_mapping(container.get("resources"))
            for kind in ("requests", "limits"):
                amounts = as_mapping(resources.get(kind)).items()
                yield from ((str(name), amount) for name, amount in amounts if "/" in str(name))


def _asked(container: Mapping[str, Any], resource: str, usual: float) -> float:
    asked = _find_asked(container, resource)
    return usual if asked is None else asked


def _find_asked(part: Mapping[str, Any], resource: str) -> float | None:
    """Return how much of a resource a container, or a pod as a whole, requests; None if it does not say."""
    resources = as_mapping(part.get("resources"))
    for kind in ("requests", "limits"):
        amount = as_mapping(resources.get(kind)).get(resource)
        if amount is not None:
            return _read_amount(amount)
    return None


def _read_amount(amount: object) -> float:
    if not isinstance(amount, int | str):
        return 0.0
    try:
        return min(max(parse_amount(amount), 0.0), MAX_AMOUNT)
    except ValueError:
        return 0.0
