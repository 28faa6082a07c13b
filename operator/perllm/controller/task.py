"""A task as the controller knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from perllm.api import names
from perllm.api.prompt import CHARACTERS_PER_TOKEN
from perllm.api.task import MAX_PRIORITY, TaskSpec, WhenToRun
from perllm.api.task_status import TaskStatus
from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_text
from perllm.cluster.times import parse_time_s
from perllm.energy.bill import Owner
from perllm.kueue.pod_update import NO_UPDATE, PodUpdate
from perllm.kueue.workload import PRIORITY_CLASS_LABEL, QUEUE_LABEL
from perllm.placement.claims import ClaimSizes
from perllm.placement.demand import NO_POD, ONE_SLOT, RUNNER, PodDemand, add_rules, read_demand
from perllm.placement.request import PlacementRequest
from perllm.scheduling.pending import PendingTask
from perllm.text import clean_line

MAX_PROBLEM = 3000
"""Longest description of what is wrong with a spec, in characters; names of fields may have any length."""


@dataclass(frozen=True, slots=True)
class Task:
    """The part of a task that never changes while the operator tracks it, except for the mutable fields of its spec.

    Attributes:
        key: namespace/name.
        namespace: its namespace.
        name: its name.
        uid: its identity.
        generation: generation of the spec.
        spec: its spec; None if that cannot be understood.
        problem: why the spec cannot be understood; empty if it can.
        received_s: Unix time at which it was created, as precisely as known.
        demand: what its pod needs of a node; of a served task, its runner pod.
        may_have_runner: whether it is a served task that may get a runner pod.
        is_deleting: whether its deletion was requested, though a finalizer may still hold it.
        queue: the LocalQueue of Kueue that it is in; empty if it is in none.
        priority_class: the WorkloadPriorityClass of Kueue that it names; empty if it names none.
        update: what its quota adds to its pod.
        billed_to: its value of the label of the bill; empty without one.
        tokens_per_character: of its prompts, if it does not state how many tokens they have.
    """

    key: str
    namespace: str
    name: str
    uid: str
    generation: int
    spec: TaskSpec | None
    problem: str
    received_s: float
    demand: PodDemand = ONE_SLOT
    may_have_runner: bool = False
    is_deleting: bool = False
    queue: str = ""
    priority_class: str = ""
    update: PodUpdate = NO_UPDATE
    billed_to: str = ""
    tokens_per_character: float = 1.0 / CHARACTERS_PER_TOKEN

    @property
    def expected_prompt_tokens(self) -> int:
        """Number of tokens in all prompts, estimated if the task does not state it."""
        return self.valid_spec.expect_prompt_tokens(self.tokens_per_character)

    @property
    def owner(self) -> Owner:
        """Whose it is, for the bill."""
        return Owner(self.namespace, self.billed_to)

    @property
    def due_s(self) -> float:
        """Unix time of the deadline."""
        return self.received_s + self.valid_spec.deadline_s

    @property
    def valid_spec(self) -> TaskSpec:
        """The spec; only for tasks without a problem."""
        if self.spec is None:
            raise ValueError(f"task {self.key} has no valid spec: {self.problem}")
        return self.spec

    @property
    def full_demand(self) -> PodDemand:
        """What its pod needs of a node, including what its quota is for."""
        return self._add_update(self.demand)

    def _add_update(self, demand: PodDemand) -> PodDemand:
        return demand if self.update == NO_UPDATE else add_rules(demand, self.update.to_pod_spec())

    def to_request(self, avoided: frozenset[str] = frozenset()) -> PlacementRequest:
        """Return what placement needs to know; `avoided` are nodes where earlier attempts ended badly."""
        spec = self.valid_spec
        return PlacementRequest(
            task_id=self.uid,
            model=spec.model,
            prompt_tokens=self.expected_prompt_tokens,
            output_tokens=spec.output_tokens,
            input_bytes=spec.input_size_bytes,
            tiers=spec.allowed_tiers,
            due_s=self.due_s,
            deadline_s=spec.deadline_s,
            namespace=self.namespace,
            demand=self._add_update(NO_POD) if spec.is_served else self.full_demand,
            avoided=avoided,
            prompts=max(len(spec.conversations), 1),
            is_served=spec.is_served,
            runner=self.full_demand if self.may_have_runner else None,
            service=spec.service_name,
        )

    def to_pending(self, attempt: int, avoided: frozenset[str] = frozenset()) -> PendingTask:
        """Return what the dispatch loop needs to know to create the pod of an attempt."""
        spec = self.valid_spec
        return PendingTask(
            self.key,
            self.generation,
            attempt,
            self.to_request(avoided),
            priority=spec.priority / MAX_PRIORITY,
            on_infeasible=spec.on_infeasible,
            kept_chance=spec.min_hit_chance if spec.when_to_run is WhenToRun.CHEAPEST else None,
        )


def read_status(values: dict[str, Any]) -> TaskStatus:
    """Return the status, or an empty one if another client has corrupted it: it is rebuilt from the pods."""
    try:
        return TaskStatus.model_validate(values)
    except ValidationError:
        return TaskStatus()


def read_task(
    item: Object,
    now_s: float,
    gpu_resources: Sequence[str] = names.GPU_RESOURCES,
    *,
    claims: ClaimSizes | None = None,
    has_runners: bool = False,
    bill_label: str = "",
) -> tuple[Task, TaskStatus]:
    """Return the task and the status in `item`.

    Its pod takes a slot for each unit of one of `gpu_resources`, or for each device that it asks for by `claims`. If it
    is served, it may get a runner pod if `has_runners`. It is billed to its value of the label `bill_label`.

    Creation times are in whole seconds, so the moment at which the task is first seen counts as its creation, within
    the second that follows the creation time. The status stores it to the microsecond, so that a restart keeps it.
    """
    metadata = item["metadata"]
    status = read_status(item.get("status") or {})
    created_s = parse_time_s(metadata.get("creationTimestamp")) or now_s
    first_seen_s = now_s if status.received_time is None else status.received_time.timestamp()
    received_s = round(min(max(first_seen_s, created_s), created_s + 1), 6)
    spec, problem = _read_spec(item.get("spec") or {})
    namespace, name, labels = metadata["namespace"], metadata["name"], as_object(metadata.get("labels"))
    task = Task(
        key=f"{namespace}/{name}",
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        spec=spec,
        problem=problem,
        received_s=received_s,
        demand=read_task_demand(namespace, spec, gpu_resources, claims or ClaimSizes()),
        may_have_runner=has_runners and spec is not None and len(spec.conversations) == 1,
        is_deleting=bool(metadata.get("deletionTimestamp")),
        queue=as_text(labels.get(QUEUE_LABEL)),
        priority_class=as_text(labels.get(PRIORITY_CLASS_LABEL)),
        billed_to=as_text(labels.get(bill_label)),
    )
    return task, status


def read_task_demand(
    namespace: str, spec: TaskSpec | None, gpu_resources: Sequence[str], claims: ClaimSizes
) -> PodDemand:
    """Return what the pod of a task needs of a node; of a served task, its runner pod."""
    if spec is None:
        return ONE_SLOT
    if spec.template is None:
        return RUNNER
    pod_spec = spec.template["spec"]
    return read_demand(pod_spec, gpu_resources, claims.find(namespace, pod_spec))


def _read_spec(values: dict[str, Any]) -> tuple[TaskSpec | None, str]:
    try:
        return TaskSpec.model_validate(values), ""
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        lines = (f"spec.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in details)
        return None, clean_line("; ".join(lines), MAX_PROBLEM)
