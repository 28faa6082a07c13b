"""Outcomes to estimates, and their persistence."""
