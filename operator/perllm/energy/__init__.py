"""What tasks cost: the energy of a node, shared among the tasks that ran there."""
