"""The upkeep of nodes: their health, and what was learned of them, kept on the API server."""
