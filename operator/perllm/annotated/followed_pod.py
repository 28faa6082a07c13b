"""What is known of an annotated pod while it exists, or its energy is awaited."""

from dataclasses import dataclass

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.cluster.pod import Pod, PodPhase
from perllm.learning.learner import Learner
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence
from perllm.placement.request import PlacementRequest


@dataclass(slots=True)
class FollowedPod:
    """A pod that exists, or whose energy is awaited.

    Attributes:
        annotated: as last seen; what it says about its work is as it was when it got its node.
        decision: by which it is in flight; None while it has no node of the fleet.
        is_ours: whether PerLLM made that decision.
        residence: what it met on its node; None until it has left.
        has_left: whether it no longer occupies its node.
        is_settling: whether its energy is awaited.
        is_gone: whether it no longer exists.
        was_over: whether it had ended before this process saw it; an earlier one may have announced that.
    """

    annotated: AnnotatedPod
    decision: Decision | None = None
    is_ours: bool = False
    residence: Residence | None = None
    has_left: bool = False
    is_settling: bool = False
    is_gone: bool = False
    was_over: bool = False

    @property
    def pod(self) -> Pod:
        """The pod."""
        return self.annotated.pod

    @property
    def request(self) -> PlacementRequest:
        """What it asks of placement; creation times are in whole seconds, so its deadline is up to one early."""
        return self.annotated.to_request(self.annotated.created_s)


def is_over(annotated: AnnotatedPod, learner: Learner) -> bool:
    """Whether a pod had ended before this process saw it, and there is nothing to learn from it."""
    pod = annotated.pod
    if not pod.is_finished:
        return False
    if pod.phase is PodPhase.FAILED or annotated.is_lasting or pod.was_restarted:
        return True
    if pod.node is None or pod.finished_s is None or pod.decision_record is None:
        return True
    return learner.recent(pod.node).contains(pod.uid, pod.finished_s)
