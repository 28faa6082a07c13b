"""Cloud only: the least loaded node of the cloud tier. Textbook rule; a task that may not run there waits forever."""

from perllm.policy.problem import Arms, BoolArray
from perllm_lab.baselines.choice import find_open
from perllm_lab.baselines.least_loaded import LeastLoaded


class CloudOnly(LeastLoaded):
    """The least loaded cloud node."""

    name = "cloud-only"

    def _find_eligible(self, arms: Arms) -> BoolArray:
        return find_open(arms) & arms.is_cloud
