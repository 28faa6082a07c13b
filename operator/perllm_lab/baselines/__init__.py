"""The rivals of PerLLM's policies, each our own re-implementation, and an upper bound on what any policy can reach."""
