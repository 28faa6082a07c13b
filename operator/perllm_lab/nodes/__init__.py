"""Simulated GPU nodes on a real API server: kubelets, model servers, exporters and the ground truth."""

from perllm_lab.nodes.fleet import SimulatedFleet

__all__ = ["SimulatedFleet"]
