"""Kubernetes I/O: credentials, requests, watches, and the local copies of objects that they maintain."""
