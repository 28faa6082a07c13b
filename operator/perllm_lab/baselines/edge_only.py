"""Edge only: the least loaded node of the edge tier. Textbook rule; a task that may not run there waits forever."""

from perllm.policy.problem import Arms, BoolArray
from perllm_lab.baselines.choice import find_open
from perllm_lab.baselines.least_loaded import LeastLoaded


class EdgeOnly(LeastLoaded):
    """The least loaded edge node."""

    name = "edge-only"

    def _find_eligible(self, arms: Arms) -> BoolArray:
        return find_open(arms) & ~arms.is_cloud
