"""Generates the parts of the Helm chart that follow the operator's models: values, schema, README, CRDs, dashboard."""
