"""Where a task goes: the arms as they are now, the decision, and what is in flight."""
