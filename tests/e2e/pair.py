"""The smallest fleet with a choice: one node of four slots at the edge, and one in the cloud."""

from pathlib import Path

import yaml

EDGE_SLOTS = 4
SCENARIO = {
    "name": "pair",
    "description": "One node of four slots at the edge, and one in the cloud",
    "model": "chat",
    "groups": [
        {"name": "t4", "count": 1, "tier": "edge", "gpu": "t4-8b", "uplink_mbps": 100, "rtt_ms": 5},
        {"name": "h100", "count": 1, "tier": "cloud", "gpu": "h100-8b", "uplink_mbps": 300, "rtt_ms": 40},
    ],
    "workload": {"arrivals": "conversation"},
}


def write_pair(folder: Path) -> str:
    """Write the scenario into a folder, and return its path."""
    file = folder / "pair.yaml"
    file.write_text(yaml.safe_dump(SCENARIO))
    return str(file)
