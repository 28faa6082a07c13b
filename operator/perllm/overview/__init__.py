"""What tasks and nodes do, for people at a terminal; runs where the user is, and reads only the API server."""
