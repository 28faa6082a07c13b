"""Simulated hardware: speed, batching, power and links of GPU nodes. Pure: simulated seconds in, events out."""
