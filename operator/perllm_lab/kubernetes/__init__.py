"""A real Kubernetes control plane and Prometheus as child processes: no root, no containers, no binary downloads."""
