"""Makes what the Helm chart has in common with the operator: values, their schema, the README, CRDs, dashboard."""
