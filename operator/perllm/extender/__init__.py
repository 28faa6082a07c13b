"""The scheduler extender: how a real kube-scheduler asks PerLLM where a pod goes."""
