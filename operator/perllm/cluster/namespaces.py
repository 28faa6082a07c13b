"""The namespace that a command works in, unless another one is given."""

from pathlib import Path

from perllm.cluster.credentials import load_namespace
from perllm.cluster.leadership import LeadershipError, find_namespace


def find_default_namespace(kubeconfig: Path | None, context: str | None) -> str:
    """Return the namespace that kubectl would use: that of the context, or in a pod that of the pod.

    Raises:
        CredentialsError: the kubeconfig cannot be read, or has no such context.
    """
    named = load_namespace(kubeconfig, context)
    if named or kubeconfig or context:
        return named or "default"
    try:
        return find_namespace()
    except LeadershipError:
        return "default"
