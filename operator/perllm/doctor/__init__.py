"""Reads a cluster and reports what PerLLM is missing there; changes nothing.

Each check is a pure function from data that was read to findings; ``examination`` reads the data.
"""
