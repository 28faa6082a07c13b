"""The configuration of the private kube-scheduler that asks the extender."""

from typing import Any

from perllm.api import names

WEIGHT = 200
"""In-tree scores add up to at most 1,200; one extender point is worth 10 times this, so the choice always wins."""

HTTP_TIMEOUT = "5s"

LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD = "5s", "4s", "500ms"
"""Another replica acquires the Lease of one that was killed after 5 to 7.2 s: it looks every 0.5 to 1.1 s, and waits
for the whole duration since it last saw a renewal. A replica that cannot renew ends before that."""


def scheduler_configuration(
    extender_url: str, scheduler_name: str = names.SCHEDULER_NAME, *, lease: str = "", namespace: str = ""
) -> dict[str, Any]:
    """Return a KubeSchedulerConfiguration: Kubernetes' own filters, PerLLM's choice.

    With a lease, of that name in that namespace, several kube-schedulers elect the one that is active.

    Kubernetes' own scores are switched off, since they could not change the outcome; all nodes are considered, since a
    sample would give the policy a changing set of arms; node names are enough, since the extender watches the nodes
    itself. A pod that found no node is retried soon, because slots become free within seconds.
    """
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": _elect(lease, namespace) if lease else {"leaderElect": False},
        "enableProfiling": False,
        "percentageOfNodesToScore": 100,
        "podInitialBackoffSeconds": 1,
        "podMaxBackoffSeconds": 2,
        "profiles": [{"schedulerName": scheduler_name, "plugins": {"score": {"disabled": [{"name": "*"}]}}}],
        "extenders": [
            {
                "urlPrefix": extender_url,
                "filterVerb": "filter",
                "prioritizeVerb": "prioritize",
                "bindVerb": "bind",
                "weight": WEIGHT,
                "enableHTTPS": False,
                "httpTimeout": HTTP_TIMEOUT,
                "nodeCacheCapable": True,
                "ignorable": False,
            }
        ],
    }


def _elect(lease: str, namespace: str) -> dict[str, Any]:
    return {
        "leaderElect": True,
        "leaseDuration": LEASE_DURATION,
        "renewDeadline": RENEW_DEADLINE,
        "retryPeriod": RETRY_PERIOD,
        "resourceLock": "leases",
        "resourceName": lease,
        "resourceNamespace": namespace,
    }
