"""Devices of one node, and claims to them."""

from e2e.stage import Stage
from perllm.api import names
from perllm.cluster.client import Client, Object
from programs.kubernetes import find_minor

DRIVER, DEVICE_CLASS, RESOURCE = "gpu.example.com", "gpus", "example.com/gpu"
SERVED_FROM_MINOR = 34
RESOURCES_FROM_MINOR = 36
DEVICES = 3
SETTINGS = {"devices": [{"device_class": DEVICE_CLASS, "driver": DRIVER, "extended_resource": RESOURCE}]}
CLAIM = {"name": "gpu", "resourceClaimTemplateName": "gpu"}


def has_devices() -> bool:
    """Whether the cluster serves devices."""
    return find_minor() >= SERVED_FROM_MINOR


async def publish_devices(client: Client, node: str, count: int) -> None:
    """Publish devices of a node as its driver would."""
    selector = {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
    named = {"extendedResourceName": RESOURCE} if find_minor() >= RESOURCES_FROM_MINOR else {}
    device_class: Object = {"metadata": {"name": DEVICE_CLASS}, "spec": {"selectors": [selector], **named}}
    await client.post(f"/apis/{names.DEVICE_GROUP}/v1/deviceclasses", device_class)
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": f"gpu-{number}"} for number in range(count)]
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    await client.post(names.SLICES_PATH, {"metadata": {"name": f"{node}-gpus"}, "spec": spec})


async def create_claim_template(stage: Stage, name: str, count: int) -> None:
    """Create a template of claims to so many devices."""
    request = {"name": "gpu", "exactly": {"deviceClassName": DEVICE_CLASS, "count": count}}
    path = f"/apis/{names.DEVICE_GROUP}/v1/namespaces/{stage.namespace}/resourceclaimtemplates"
    spec = {"spec": {"devices": {"requests": [request]}}}
    await stage.lab.client.post(path, {"metadata": {"name": name}, "spec": spec})


def build_claiming_spec(claim: Object) -> Object:
    """Return the spec of a pod with a claim."""
    container = {"name": "llm", "image": "llm", "resources": {"claims": [{"name": claim["name"]}]}}
    return {"restartPolicy": "Never", "containers": [container], "resourceClaims": [claim]}
