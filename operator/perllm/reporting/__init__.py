"""What a cluster did, from the metrics that Prometheus keeps of PerLLM: bills and reports."""
