"""Simulated GPU nodes on a real API server: kubelets, hardware exporters and the ground truth of the lab."""

from perllm_lab.nodes.fleet import SimulatedFleet

__all__ = ["SimulatedFleet"]
