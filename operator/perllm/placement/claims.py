"""How many devices pods claim: by ResourceClaims, which their specs only name, or by the resource of a DeviceClass."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from perllm.cluster.devices import DeviceClaim, DeviceSelection
from perllm.cluster.shapes import as_object, as_objects, as_text
from perllm.placement.pod_requests import add_up, as_mapping

Key = tuple[str, bool, str]
"""Namespace, whether it is a template, and name."""

NO_DEVICES = ("", 0.0)

CLASS_RESOURCE = "deviceclass.resource.kubernetes.io/"
"""Before the name of a DeviceClass: the extended resource by which pods may ask for its devices, from 1.36 on."""

MAX_MISSING = 10_000
"""Names that pods have used and that are not known; of more, those that were used least recently are forgotten. Claims
are often gone before their pods, and may each have a name of their own."""


class ClaimSizes:
    """The claims and templates of claims that pods may name.

    Args:
        devices: those that are slots; none if devices are not.
    """

    def __init__(self, devices: Sequence[DeviceSelection] = ()) -> None:
        self._devices = devices
        self._counts: dict[Key, Mapping[str, int]] = {}
        self._missing: dict[Key, None] = {}

    def put(self, claim: DeviceClaim) -> bool:
        """Take in a claim or a template; return whether a pod has named it before it was known."""
        key = claim.namespace, claim.is_template, claim.name
        self._counts[key] = claim.counts
        is_missed = key in self._missing
        self._missing.pop(key, None)
        return is_missed

    def remove(self, claim: DeviceClaim) -> None:
        """Forget a claim or a template."""
        self._counts.pop((claim.namespace, claim.is_template, claim.name), None)

    def find(self, namespace: str, pod_spec: object, pod_status: object = None) -> tuple[str, float]:
        """Return the resource and the number of devices that a pod asks for; an empty name if it asks for none.

        A claim that is not known counts as one device: its pod could not run yet in any case. The claims that were made
        from templates are named in the status of a pod that exists; they outlive their templates.
        """
        counts: Counter[str] = Counter()
        for key in self._list_named(namespace, pod_spec, pod_status) if self._devices else ():
            if key not in self._counts:
                self._miss(key)
            counts.update(self._counts.get(key, {self._devices[0].device_class: 1}))
        for one in self._devices:
            count = counts[one.device_class] + add_up(as_mapping(pod_spec), CLASS_RESOURCE + one.device_class)
            if count:
                return one.resource, float(count)
        return NO_DEVICES

    def _miss(self, key: Key) -> None:
        self._missing.pop(key, None)
        self._missing[key] = None
        if len(self._missing) > MAX_MISSING:
            del self._missing[next(iter(self._missing))]

    def _list_named(self, namespace: str, pod_spec: object, pod_status: object) -> Iterator[Key]:
        statuses = as_objects(as_object(pod_status).get("resourceClaimStatuses"))
        made = {as_text(one.get("name")): as_text(one.get("resourceClaimName")) for one in statuses}
        for one in as_objects(as_object(pod_spec).get("resourceClaims")):
            template, name = as_text(one.get("resourceClaimTemplateName")), as_text(one.get("resourceClaimName"))
            claim = namespace, False, name or made.get(as_text(one.get("name")), "")
            yield claim if name or claim in self._counts else (namespace, True, template)
