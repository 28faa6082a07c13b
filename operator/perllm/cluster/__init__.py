"""Kubernetes I/O: credentials, requests, watches, and what they keep in memory."""
