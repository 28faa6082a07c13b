"""The decisions: pure functions of task, arms and learned estimates. No clock, no I/O, no global random state."""
