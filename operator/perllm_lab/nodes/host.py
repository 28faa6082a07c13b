"""One simulated node: its machine, and what runs on it."""

from dataclasses import dataclass

from perllm_lab.nodes.kubelet import Kubelet
from perllm_lab.nodes.machine import Machine
from perllm_lab.nodes.model_server import SimulatedServer


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with its kubelet and its model server."""

    machine: Machine
    kubelet: Kubelet
    server: SimulatedServer

    def cut_power(self) -> None:
        """Cut the power: running pods and requests are lost, and nothing is reported."""
        if self.machine.is_up:
            self.kubelet.lose_pods()
            self.server.lose_requests()
            self.machine.cut_power()

    def boot(self) -> None:
        """Boot with nothing running, unless it is up."""
        if not self.machine.is_up:
            self.machine.boot()
