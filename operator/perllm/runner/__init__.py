"""The runner: carries out a task by asking an OpenAI-compatible model server, and reports what it measured."""
