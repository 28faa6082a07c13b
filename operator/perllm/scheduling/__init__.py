"""When a task starts: which of those that wait comes next, and whether it starts, waits or is refused."""
