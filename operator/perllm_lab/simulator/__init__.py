"""Discrete-event simulation, without a cluster: the policy code of the operator on the hardware model of the lab."""
