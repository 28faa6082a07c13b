"""Makes a served task of each prompt of a batch, and gathers the answers; runs where the user is."""
