"""Devices and claims as the API server returns them: GPUs of nodes, published by NVIDIA's driver."""

from typing import Any

from perllm.cluster.devices import DeviceClaim, DeviceSelection, DeviceSlice, read_claim, read_slice

DRIVER = "gpu.nvidia.com"
GPUS = DeviceSelection(DRIVER, DRIVER, {"type": "gpu"})


def gpu(name: str, *, kind: str = "gpu", **fields: Any) -> dict[str, Any]:
    attributes = {"type": {"string": kind}, f"{DRIVER}/productName": {"string": "NVIDIA A100-SXM4-80GB"}}
    return {"name": name, "attributes": attributes, **fields}


def slice_object(
    node: str, *devices: dict[str, Any], name: str = "s", generation: int = 1, total: int = 1, driver: str = DRIVER
) -> dict[str, Any]:
    pool = {"name": node, "generation": generation, "resourceSliceCount": total}
    return {
        "metadata": {"name": name},
        "spec": {"driver": driver, "nodeName": node, "pool": pool, "devices": list(devices)},
    }


def make_slice(node: str, *devices: str, **fields: Any) -> DeviceSlice:
    made = read_slice(slice_object(node, *map(gpu, devices), **fields), [GPUS])
    assert made is not None
    return made


def claim_object(name: str, *requests: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"devices": {"requests": list(requests)}}
    return {"metadata": {"name": name, "namespace": "lab"}, "spec": spec, "status": status or {}}


def request(count: int | None = None, device_class: str = DRIVER) -> dict[str, Any]:
    exactly: dict[str, Any] = {"deviceClassName": device_class}
    return {"name": "gpu", "exactly": exactly if count is None else {**exactly, "count": count}}


def make_allocated(name: str, node: str, *devices: str, users: tuple[str, ...] = (), **result: Any) -> DeviceClaim:
    results = [{"driver": DRIVER, "pool": node, "device": device, **result} for device in devices]
    reserved = [{"resource": "pods", "name": "p", "uid": uid} for uid in users]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}
    return read_claim(claim_object(name, request(len(devices)), status=status))
