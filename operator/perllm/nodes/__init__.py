"""The upkeep of nodes: their health, and what was learned about them, stored on the API server."""
