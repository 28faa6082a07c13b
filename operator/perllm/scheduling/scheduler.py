"""Everything that decides about tasks, in one place: each input that a decision depends on is a method of `Scheduler`.

    nodes       put_node, remove_node, put_foreign, put_serving, note_servers_known, put_bandwidth, put_idle_power,
                put_costs, warm
    tasks       note_arrival, submit, withdraw, retract, forget
    pods        note_pod, note_created, note_denied, note_abandoned, release_room, retry, retry_namespace
    placement   decide, settle (kube-scheduler asks), confirm, cancel, end, drop, free
    other pods  consider, rehearse
    outcomes    restore, review, learn, learn_ended
    circuits    note_refused, note_failed, note_began, note_succeeded, tend_circuits
    time        due, refresh

The operator and the simulator give the same inputs to the same code, and a recorded run can be replayed (journal.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from perllm.api.node_profile import CircuitState
from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.costs.outlook import CostOutlook
from perllm.learning.absences import Absences
from perllm.learning.learner import Learner
from perllm.learning.node_state import NodeState
from perllm.learning.outcome import Ended, Outcome
from perllm.learning.restoration import restore
from perllm.placement.circuit import Attempt, CircuitChange
from perllm.placement.circuits import Circuits
from perllm.placement.costs import JouleCosts
from perllm.placement.counterfactual import Ending, Prospect
from perllm.placement.decision import Decision
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.flight import Residence
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement, Placer
from perllm.placement.rehearsal import OtherScheduler, build_rehearsal
from perllm.placement.request import PlacementRequest
from perllm.placement.serving import NOTHING, Serving
from perllm.policy.problem import Policy
from perllm.scheduling.deferral import StartPlanner
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.journal import Inputs, recorded
from perllm.scheduling.loop import DispatchLoop, DispatchRules
from perllm.scheduling.pending import Action, PendingTask
from perllm.scheduling.shares import Shares


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a scheduler, for code that only reads them.

    Attributes:
        policy: chooses among arms.
        learner: predicts.
        fleet: the nodes.
        ledger: the tasks in flight.
        circuits: of the nodes.
    """

    policy: Policy
    learner: Learner
    fleet: Fleet
    ledger: Ledger
    circuits: Circuits


class Scheduler:
    """Decides which task starts when, and where, from the inputs that its methods take.

    Args:
        parts: what it is made of.
        inputs: its clock and its journal.
        rules: of the queue.
        shares: of the namespaces.
        transmission_j_per_bit: energy of moving one bit to a node, by tier.
        rng: for the jitter of pauses.
        metrics_age_s: returns the age of a node's metrics, None when there are none; shown, but not decided on.
        other: whose choices are rehearsed: kube-scheduler's, or PerLLM's where another scheduler places the pods.
        has_readers: whether decisions are explained to people, with reason, alternatives and excluded nodes.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        inputs: Inputs,
        rules: DispatchRules,
        shares: Shares,
        transmission_j_per_bit: Mapping[Tier, float],
        rng: Random,
        metrics_age_s: Callable[[str], float | None] = lambda _: None,
        other: OtherScheduler = OtherScheduler.NONE,
        has_readers: bool = True,
    ) -> None:
        self.inputs = inputs
        self._policy = parts.policy
        self._learner = parts.learner
        self._fleet = parts.fleet
        self._ledger = parts.ledger
        self._circuits = parts.circuits
        self._absences = Absences()
        clock, self._costs = inputs.clock, JouleCosts()
        build_placer = partial(
            Placer,
            parts.policy,
            parts.learner,
            parts.fleet,
            circuits=parts.circuits,
            transmission_j_per_bit=dict(transmission_j_per_bit),
            metrics_age_s=metrics_age_s,
            unix_now=clock.unix_s,
            now=clock.now_s,
            costs=self._costs,
            has_readers=has_readers,
        )
        self._placer = build_placer(parts.ledger)
        own_rng = Random(rng.getrandbits(32))
        self._rehearsal = build_rehearsal(
            build_placer, parts.ledger, parts.fleet, parts.learner, other=other, rng=own_rng, now_s=clock.now_s
        )
        self._loop = DispatchLoop(
            self._placer,
            fleet=parts.fleet,
            ledger=parts.ledger,
            circuits=parts.circuits,
            shares=shares,
            rules=rules,
            planner=StartPlanner(self._costs, clock.unix_s),
            clock=clock,
            rng=rng,
        )

    @property
    def waiting(self) -> int:
        """Number of tasks that wait for a pod."""
        return self._loop.waiting

    def postponed(self, cause: DenialCause) -> int:
        """Return how many of them wait because their pods were denied for this cause."""
        return self._loop.postponed(cause)

    @property
    def waiting_for_room(self) -> int:
        """Number of those that wait for nothing but room: on all nodes that may take them, or on a better one."""
        return self._loop.waiting_for_room

    @property
    def deferred(self) -> int:
        """Number of those that wait for cheaper energy."""
        return self._loop.deferred

    def next_s(self) -> float:
        """Return when `due` must be called next even if nothing happens, by the monotonic clock; inf for never."""
        return self._loop.next_s()

    @recorded
    def put_node(self, node: Node, bandwidth: Bandwidth) -> None:
        """Add or update a node; one that replaces another under the same name starts cold and with closed circuits."""
        known = self._fleet.nodes.get(node.name)
        if known == node:
            return
        former_type = self._learner.find_gpu_type(node.name)
        row = self._learner.register(node.name, node.gpu_type)
        if former_type not in (None, node.gpu_type):
            self._ledger.forget_usual(row)
        if known is not None and known.uid != node.uid:
            self._learner.cool(node.name)
            self._circuits.forget_node(node.name)
        self._absences.note_back(node.name)
        self._fleet.put(node, row, bandwidth)
        self._take_serving(node.name, NOTHING)
        self._placer.note_bandwidth()
        self._rehearsal.note_bandwidth()
        self._rehearsal.note_node(node.name, answers=node.answers)
        self._loop.examine_all()

    @recorded
    def remove_node(self, name: str) -> None:
        """Remove a node that left the cluster; what was learned on it is kept."""
        self._learner.cool(name)
        if name in self._fleet.nodes:
            self._absences.note_left(name, self._now_s())
            self._fleet.remove(name)
            self._rehearsal.lose_node(name)
            self._circuits.forget_node(name)
            self._loop.examine_all()

    @recorded
    def put_foreign(self, node: str, slots: dict[str, float]) -> None:
        """Note the slots of a node that foreign pods take, by resource; the node may still be unknown."""
        self._fleet.put_foreign(node, slots)
        self._loop.free(node)

    @recorded
    def put_serving(self, node: str, serving: Serving) -> None:
        """Note what the model servers of a node offer; the node may still be unknown."""
        known = self._fleet.serving_of(node)
        self._fleet.put_serving(node, serving)
        if node in self._fleet.nodes:
            self._take_serving(node, known)

    @recorded
    def note_servers_known(self) -> None:
        """Note that agents have had time to report, so that served tasks may get runner pods where none is known."""
        self._loop.note_servers_known()

    @recorded
    def put_bandwidth(self, bandwidth: dict[str, Bandwidth]) -> None:
        """Update what is known of the uplinks of nodes."""
        for name, one in bandwidth.items():
            if name in self._fleet.nodes:
                self._fleet.put_bandwidth(name, one)
        self._placer.note_bandwidth()
        self._rehearsal.note_bandwidth()

    @recorded
    def put_idle_power(self, node: str, idle_w: float) -> None:
        """Update the idle power of a node, which may have left; watts."""
        if node in self._fleet.nodes:
            self._fleet.put_idle_power(node, idle_w)

    @recorded
    def put_costs(self, outlook: CostOutlook) -> None:
        """Update the present and expected cost of joules on the nodes."""
        self._costs.put(outlook, {name: self._fleet.row(name) for name in outlook.of_node if name in self._fleet.nodes})
        self._loop.note_costs()

    @recorded
    def warm(self, node: str, model: str) -> None:
        """Note that a node has a model loaded."""
        self._learner.warm(node, model)

    @recorded
    def note_arrival(self, request: PlacementRequest) -> None:
        """Update the mean task of a model by one that has arrived."""
        self._placer.note_arrival(request)

    @recorded
    def submit(self, task: PendingTask) -> None:
        """Queue a task for its next pod."""
        self._loop.submit(task)
        self._rehearsal.place(task.request)

    @recorded
    def withdraw(self, key: str) -> None:
        """Remove a task from the queue: it ended, was deleted, or its pod is bound."""
        self._loop.withdraw(key)

    @recorded
    def retract(self, key: str) -> None:
        """Take back the decision about a task: its pod fits on none of the nodes that it names, and is replaced."""
        self._loop.retract(key)

    @recorded
    def forget(self, key: str, task_id: str) -> None:
        """Forget a task that no longer exists."""
        self._loop.withdraw(key)
        self._loop.forget_decision(task_id)
        self._rehearsal.forget(task_id)
        self._placer.release(task_id)
        self._circuits.forget_task(task_id)

    @recorded
    def note_pod(self, key: str) -> None:
        """Note that a task has a pod that waits for kube-scheduler."""
        self._loop.note_pod(key)

    @recorded
    def note_created(self, task: PendingTask) -> None:
        """Note that the API server has created the pod of a task."""
        self._loop.note_created(task)

    @recorded
    def note_denied(self, task: PendingTask, denial: PodDenial) -> bool:
        """Postpone a task whose pod was denied; return whether it still waits."""
        return self._loop.note_denied(task, denial)

    @recorded
    def note_abandoned(self, task: PendingTask) -> None:
        """Queue a task again because creating its pod was abandoned."""
        self._loop.note_abandoned(task)

    @recorded
    def release_room(self, key: str) -> None:
        """Release the slots that are reserved for a task: its pod will not run soon."""
        self._loop.release_room(key)

    @recorded
    def retry(self, key: str) -> None:
        """Retry a postponed task at once: the cause has gone."""
        self._loop.retry(key)

    @recorded
    def retry_namespace(self, namespace: str) -> None:
        """Retry postponed tasks of a namespace, a few at a time: the causes of their denials may have gone."""
        self._loop.retry_namespace(namespace)

    @recorded
    def decide(self, request: PlacementRequest, candidates: list[str]) -> Placement:
        """Return the decision about a pod that kube-scheduler is about to place among `candidates`."""
        return self._loop.decide(request, candidates)

    @recorded
    def consider(self, request: PlacementRequest) -> Placement:
        """Return what would be decided about a task now; nothing is reserved."""
        return self._placer.choose(request)

    @recorded
    def rehearse(self, request: PlacementRequest) -> Prospect | None:
        """Return the other scheduler's choice for a task that is not queued here; None if there is none."""
        return self._rehearsal.place(request)

    def find_counterfactual(self, task_id: str) -> Prospect | None:
        """Return what was expected of a task under the other choice; None if there is none."""
        return self._rehearsal.find(task_id)

    def explain(self, placement: Placement, node: str) -> Decision:
        """Return the decision for a node, whichever scheduler chose it, with its counterfactual."""
        counterfactual = self._rehearsal.find(placement.request.task_id)
        return replace(self._placer.explain(placement, node), counterfactual=counterfactual)

    @recorded
    def review(self, decision: Decision, due_s: float, outcome: Outcome | None) -> Ending | None:
        """Return what became of a task next to its counterfactual; None if it has none. To be called before `learn`.

        Args:
            decision: by which it ran.
            due_s: Unix time of its deadline.
            outcome: of its run; None if it was ended at its deadline.
        """
        return self._rehearsal.review(decision, due_s, outcome)

    @recorded
    def settle(self, task_id: str, node: str) -> Decision | None:
        """Return the decision for the node that kube-scheduler chose; None if it has to be made again."""
        placement = self._loop.settle(task_id, node)
        if placement is None:
            return None
        return self.explain(placement, node)

    @recorded
    def confirm(self, decision: Decision, slots: float, resource: str = "") -> None:
        """Count a bound task as in flight, with its slots of a resource, unless its node has left."""
        self._loop.forget_decision(decision.task_id)
        if decision.node in self._fleet.nodes:
            self._placer.confirm(decision, slots, resource)

    @recorded
    def cancel(self, task_id: str) -> None:
        """Release a reservation: the binding failed."""
        self._loop.cancel(task_id)

    @recorded
    def end(self, task_id: str, node: str, output_tokens: float | None = None) -> Residence | None:
        """Note that a task has left its node; return its residence there, None if it was not in flight.

        Args:
            task_id: uid of the task.
            node: name of the node.
            output_tokens: length of its answer, if that is complete and known.
        """
        residence = self._placer.release(task_id)
        if output_tokens is not None:
            self._rehearsal.note_end(task_id, output_tokens)
        self._loop.free(node)
        return residence

    @recorded
    def drop(self, task_id: str) -> None:
        """Release a task that is in flight although no pod of it is: the event that released it was missed."""
        self._placer.release(task_id)
        self._loop.examine_all()

    @recorded
    def free(self, node: str) -> None:
        """Note that a node may have room again."""
        self._loop.free(node)

    @recorded
    def restore(self, node: str, state: NodeState) -> int:
        """Restore what an earlier process learned on a node; return the number of outcomes.

        Raises:
            StateError: it cannot have been learned; then nothing of it is restored.
        """
        return restore(self._learner, node, state, self._policy.name, self.inputs.clock.unix_s())

    @recorded
    def learn(self, outcome: Outcome, gpu_type: str) -> float | None:
        """Learn from an outcome and return its reward; None when it was learned before or cannot be true.

        Args:
            outcome: the outcome.
            gpu_type: of its node; needed if the node has left the cluster and this process has never seen it.
        """
        if not self._learner.knows(outcome.run.node):
            self._learner.register(outcome.run.node, gpu_type)
        return self._learner.learn(outcome, self._rehearsal.judge_own(outcome))

    @recorded
    def learn_ended(self, ended: Ended) -> bool:
        """Learn from a run that was ended at its deadline."""
        return self._learner.learn_ended(ended)

    @recorded
    def note_refused(self, attempt: Attempt, reason: str) -> list[CircuitChange]:
        """Note that a node did not run a pod."""
        return self._apply_bad(attempt.node, self._circuits.note_refused(attempt, reason, self._now_s()))

    @recorded
    def note_failed(self, attempt: Attempt, reason: str) -> list[CircuitChange]:
        """Note that the container of a pod ended with an error."""
        changes = self._circuits.note_failed(attempt, reason, self._now_s(), len(self._fleet.nodes))
        return self._apply_bad(attempt.node, changes)

    @recorded
    def note_began(self, attempt: Attempt) -> list[CircuitChange]:
        """Note that a pod began to run."""
        return self._apply(self._circuits.note_began(attempt))

    @recorded
    def note_succeeded(self, attempt: Attempt) -> list[CircuitChange]:
        """Note that a task succeeded."""
        return self._apply(self._circuits.note_succeeded(attempt, self._now_s()))

    @recorded
    def tend_circuits(self) -> list[CircuitChange]:
        """Allow a probe on every node whose pause has passed."""
        return self._apply(self._circuits.tend(self._now_s()))

    @recorded
    def due(self) -> list[Action]:
        """Return the actions about waiting tasks that are due."""
        return self._loop.due()

    @recorded
    def refresh(self) -> list[str]:
        """Drop reservations that expired, surplus models, and the outcomes of nodes that are gone for long.

        Return the tasks of the reservations.
        """
        late = self._placer.find_expired()
        for task_id in late:
            self._loop.cancel(task_id)
        self._placer.trim()
        for node in self._absences.take_long(self._now_s()):
            self._learner.shorten_recent(node, self.inputs.clock.unix_s())
        return late

    def _take_serving(self, node: str, known: Serving) -> None:
        serving = self._fleet.serving_of(node)
        self._ledger.put_foreign(self._fleet.row(node), serving.foreign, self._now_s())
        self._ledger.put_batches(self._fleet.row(node), serving.batches)
        for model in serving.models:
            is_new = model not in known.models
            if model in serving.unloaded and (is_new or model not in known.unloaded):
                self._learner.unload(node, model)
            elif model not in serving.unloaded and (is_new or model in known.unloaded):
                self._learner.warm(node, model)
        if (serving.models, serving.unloaded) != (known.models, known.unloaded) or serving.slots != known.slots:
            self._loop.examine_all()
        elif serving.foreign < known.foreign:
            self._loop.free(node)

    def _apply_bad(self, node: str, changes: list[CircuitChange]) -> list[CircuitChange]:
        """Apply the changes by a bad end, which is no evidence if its node has left: another may join by its name."""
        if node not in self._fleet.nodes:
            self._circuits.forget_node(node)
            changes = [change for change in changes if change.node != node]
        return self._apply(changes)

    def _apply(self, changes: list[CircuitChange]) -> list[CircuitChange]:
        for change in changes:
            if change.state is not CircuitState.OPEN:
                self._loop.free(change.node)
        return changes

    def _now_s(self) -> float:
        return self.inputs.clock.now_s()
