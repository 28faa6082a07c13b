"""An edge-cloud on a laptop: a real control plane, simulated GPU hardware, the same policy code."""
