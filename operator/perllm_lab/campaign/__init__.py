"""Campaigns: many runs, kept so that they can be resumed."""
