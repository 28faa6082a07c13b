"""What a task asks of placement."""

from dataclasses import dataclass, replace

from perllm.api.task import Tier
from perllm.placement.demand import ONE_SLOT, PodDemand


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """A task that needs a node.

    Attributes:
        task_id: uid of the task.
        model: its model.
        prompt_tokens: length of the prompt.
        output_tokens: expected length of the answer; None to use what was learned.
        input_bytes: payload.
        tiers: tiers on which it may run.
        due_s: Unix time of its deadline.
        deadline_s: the deadline as given.
        namespace: of the task.
        demand: what its pod asks of a node.
        runner: what its runner pod asks of a node, if it may get one while no model server is known.
        avoided: nodes where earlier attempts at it ended badly.
        prompts: number of prompts, each with an answer of its own.
        is_served: whether it runs as a request to a model server of the node.
        service: name of the service that it belongs to, in its namespace; empty if it names none.
    """

    task_id: str
    model: str
    prompt_tokens: int
    output_tokens: int | None
    input_bytes: int
    tiers: frozenset[Tier]
    due_s: float
    deadline_s: float
    namespace: str = ""
    demand: PodDemand = ONE_SLOT
    runner: PodDemand | None = None
    avoided: frozenset[str] = frozenset()
    prompts: int = 1
    is_served: bool = False
    service: str = ""

    @property
    def origin(self) -> str:
        """Whose answer it asks for: `<namespace>/<service>`, or the namespace alone."""
        return f"{self.namespace}/{self.service}" if self.service else self.namespace

    @property
    def slots(self) -> float:
        """Slots that it takes: of the node, or of its model servers."""
        return 1.0 if self.is_served else self.demand.slots

    @property
    def resource(self) -> str:
        """What these slots are units of, if its pod asks for a resource."""
        return "" if self.is_served else self.demand.resource

    def as_pod(self, demand: PodDemand) -> "PlacementRequest":
        """Return what the task asks for as a pod that asks this of its node."""
        return replace(self, is_served=False, demand=demand, runner=None)
