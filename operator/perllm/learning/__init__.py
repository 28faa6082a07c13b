"""Outcomes to estimates: the laws of time, energy and length."""
