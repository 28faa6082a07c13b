"""Discrete-event simulation without a cluster: the operator's scheduler on the hardware model of the lab."""
