"""Reads a cluster and says what PerLLM lacks there; changes nothing.

Each check is a pure function from what was read to findings; ``examination`` does the reading.
"""
