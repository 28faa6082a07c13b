"""The resources of the group ``perllm.io``: pydantic models from which the CustomResourceDefinitions are generated."""
