"""A real LLM with an OpenAI API: SmolLM2-135M-Instruct on llama.cpp, small enough for two cores."""
