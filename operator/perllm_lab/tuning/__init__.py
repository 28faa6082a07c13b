"""Finds the parameters that serve each baseline best, on seeds that are not judged."""
