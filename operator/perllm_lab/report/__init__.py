"""Output for people: live progress, tables, and the page of a simulation."""
