"""Chat completions: one request to an OpenAI-compatible model server, and its answer, streamed and measured."""
