"""What a run shows its user: live progress, tables, comparisons."""
