"""Discrete events: the same policy code and the same hardware model as the operator and the lab, without a cluster."""
