"""When a task starts: which waiting task comes next, and whether it starts, waits or is rejected."""
