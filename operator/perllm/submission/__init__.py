"""Creates a served task for each prompt of a batch, and collects the answers; runs where the user is."""
