"""Checks the clocks of nodes by the timestamps in pods of tasks."""

from dataclasses import dataclass, field

from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, read_pod
from perllm.doctor.finding import Finding, name_some, ok, warn

CLOCKS = "clocks of nodes"

SLACK_S = 2.0
"""Tolerance, since both timestamps are in whole seconds."""


@dataclass(slots=True)
class NodeClocks:
    """What pods of tasks show about the clocks of their nodes.

    Attributes:
        pods: number of pods.
        skews_s: by how many seconds the clock of a node is ahead; only of nodes whose clock is wrong.
    """

    pods: int = 0
    skews_s: dict[str, float] = field(default_factory=dict)

    def see(self, item: Object) -> None:
        """Take a pod into account."""
        pod = read_pod(item)
        if pod is None:
            return
        self.pods += 1
        skew_s = find_skew_s(pod)
        if pod.node is not None and abs(skew_s) > abs(self.skews_s.get(pod.node, 0.0)):
            self.skews_s[pod.node] = skew_s


def check_clocks(clocks: NodeClocks) -> Finding:
    """Check the clocks of all nodes that pods of tasks have run on."""
    if not clocks.skews_s:
        return ok(CLOCKS, f"none of {clocks.pods} pods started before its creation or ended after that was reported")
    named = [f"{node} ({_describe(skew_s)})" for node, skew_s in sorted(clocks.skews_s.items())]
    message = f"wrong on {name_some(named)}; PerLLM uses its own observations of tasks there instead"
    return warn(CLOCKS, message, "run an NTP client there, such as chrony; energy on these nodes is coarse until then")


def find_skew_s(pod: Pod) -> float:
    """Return by how many seconds the node's clock must at least be ahead, given a pod's times; 0 if they are plausible.

    They are not plausible if the pod started before the API server had created it, or if it started or ended after that
    was reported to the API server.
    """
    times_s = [time_s for time_s in (pod.started_s, pod.finished_s) if time_s is not None]
    if not times_s:
        return 0.0
    ahead_s = max(times_s) - pod.reported_s if pod.reported_s is not None else 0.0
    behind_s = pod.created_s - min(times_s) if pod.created_s is not None else 0.0
    if max(ahead_s, behind_s) <= SLACK_S:
        return 0.0
    return ahead_s if ahead_s > behind_s else -behind_s


def _describe(skew_s: float) -> str:
    return f"at least {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
