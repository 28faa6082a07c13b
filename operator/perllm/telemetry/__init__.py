"""Telemetry: the figures of all nodes from Prometheus, each with its age and quality."""
