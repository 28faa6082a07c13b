"""Telemetry: figures of all nodes from Prometheus, with the age and the quality of every one of them."""
