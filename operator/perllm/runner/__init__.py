"""The runner: sends the prompts of a task to an OpenAI-compatible model server, and reports what it measured."""
