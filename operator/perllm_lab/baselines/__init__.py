"""Policies to compare with: the paper's, those of the literature and textbook rules, each our own re-implementation."""
