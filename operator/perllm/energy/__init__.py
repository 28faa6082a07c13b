"""The energy of tasks: what a node used, split among the tasks that ran there."""
