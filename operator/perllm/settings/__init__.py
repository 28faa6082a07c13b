"""The sections of the configuration of the operator."""
