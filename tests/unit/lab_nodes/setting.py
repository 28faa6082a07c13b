import asyncio
import dataclasses
from types import SimpleNamespace

import numpy as np

from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.clock import Clock
from perllm_lab.nodes.host import Host
from perllm_lab.nodes.kubelet import Kubelet, Surroundings
from perllm_lab.nodes.machine import Machine
from perllm_lab.nodes.model_server import ServerSurroundings, SimulatedServer
from perllm_lab.nodes.pacer import Pacer
from unit.hardware.round_gpu import ROUND_GPU

EPOCH_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z

# Pod start 2 s, model load 4 s, prefill 10 ms a token, decode 0.1 s a token alone.
GPU = dataclasses.replace(ROUND_GPU, iteration_per_task_s=0.0, model_load_s=4.0, pod_start_s=2.0)
SPEC = NodeSpec("edge-0", "edge", "chat", GPU, LinkType(bandwidth_bps=8e6, rtt_s=1.0))


def pod_object(name="pod-1", *, uid=None, prompt="100", output="10", size="0", gpus="1", **annotations):
    marks = {"prompt-tokens": prompt, "output-tokens": output, "input-bytes": size, **annotations}
    return {
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": uid or f"uid-{name}",
            "creationTimestamp": "2027-01-15T08:00:00Z",
            "labels": {"perllm.io/task": f"task-of-{name}"},
            "annotations": {f"lab.perllm.io/{key}": value for key, value in marks.items()},
        },
        "spec": {
            "nodeName": SPEC.name,
            "containers": [
                {"name": "llm", "image": "perllm-lab/llm", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
            ],
        },
        "status": {"phase": "Pending"},
    }


def start_node(spec=SPEC):
    """Returns a node at speed 2 whose writes and records are kept as (loop seconds since the start, what).

    To be called in the test itself: virtual time begins there.
    """
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    writes, records = [], []
    clock = Clock(loop.time, start_s, EPOCH_S, speed=2.0)
    of_pods = Surroundings(lambda key, write: writes.append((round(loop.time() - start_s, 3), write)), records.append)
    machine = Machine(spec, np.random.default_rng(0), clock)
    server = SimulatedServer(machine, ServerSurroundings(Pacer(), records.append))
    host = Host(machine, Kubelet(machine, of_pods), server)
    return SimpleNamespace(
        host=host, machine=machine, kubelet=host.kubelet, server=server, writes=writes, records=records
    )
