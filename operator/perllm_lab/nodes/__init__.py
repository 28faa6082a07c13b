"""Simulated GPU nodes on a real API server: kubelets, hardware exporters and the lab's ground truth."""

from perllm_lab.nodes.fleet import SimulatedFleet

__all__ = ["SimulatedFleet"]
