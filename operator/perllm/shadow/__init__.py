"""Shadow mode: what PerLLM would have done with the pods of other schedulers, and what that would have saved."""
