"""The operator's scheduler in a simulation: the same code, given the inputs that the operator would give it.

The policy is a parameter, and so are the rules by which its choices are carried out (`DeploymentMode`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from random import Random

from perllm.api.task import OnInfeasible, Tier
from perllm.api.task_status import RunsAs
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.placement.circuits import Circuits
from perllm.placement.counterfactual import Savings
from perllm.placement.decision import Decision
from perllm.placement.demand import PodDemand
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun, judge_ended, judge_run
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement
from perllm.placement.rehearsal import OtherScheduler
from perllm.placement.request import PlacementRequest
from perllm.placement.serving import Serving
from perllm.policy.problem import Policy
from perllm.scheduling.admission import Admission
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.journal import Inputs
from perllm.scheduling.loop import DispatchRules
from perllm.scheduling.order import Order
from perllm.scheduling.pending import PendingTask, Reject, SetAside, Start
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.scheduling.shares import Shares
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.scheduler import (
    Completion,
    Forecast,
    NodeReading,
    QueueRules,
    RejectTask,
    SendTask,
    StationOrder,
)
from perllm_lab.workload.requests import Request

ALL_TIERS = frozenset(Tier)
POD_DEMAND = PodDemand(cpu_cores=1.0, memory_bytes=2.0 * 2**30)
"""What pods of tasks request in the lab (workload/manifests.py)."""

DEADLINE_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class DeploymentMode:
    """How a policy's choices are carried out.

    Attributes:
        queue_rules: of the queues of nodes, and what happens at deadlines.
        order: in which waiting tasks are examined.
        may_reject: whether tasks may be rejected, as with `onInfeasible: Reject`.
        min_hit_chance: tasks are rejected if no node gives them this chance; None leaves it to the policy.
    """

    queue_rules: QueueRules
    order: Order
    may_reject: bool
    min_hit_chance: float | None = None


_AT_DEADLINE = QueueRules(StationOrder.DEADLINE, drops=True, ends_at_deadline=True)

OPERATOR_MODE = DeploymentMode(_AT_DEADLINE, Order.URGENCY, may_reject=True)
"""The operator's own rules, except that the policy alone decides what is rejected, so that policies are compared."""

LENIENT_MODE = DeploymentMode(QueueRules(StationOrder.DEADLINE), Order.URGENCY, may_reject=False)
"""The operator's rules for tasks that are neither rejected nor ended, as by default."""

PLAIN_MODE = DeploymentMode(QueueRules(), Order.ARRIVAL, may_reject=False)
"""First come, first served: tasks are sent at once and wait at their nodes; none is dropped, ended or rejected."""

DEADLINE_MODE = DeploymentMode(_AT_DEADLINE, Order.DEADLINE, may_reject=False)
"""Earliest deadline first; tasks are dropped and ended at their deadline, and none is rejected."""


class Placing:
    """Lets a policy of the operator decide in a simulation.

    Args:
        name: of the policy in results.
        policy: chooses among arms.
        mode: how its choices are carried out.
        settings: of the simulation; if tasks are served tasks, every node serves its model.
        learner: predicts; a new one unless given.
        other: whose choices are rehearsed, to estimate savings.
        counts_from: number of the first task whose savings count.

    Attributes:
        savings: what PerLLM is estimated to save.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        mode: DeploymentMode,
        settings: SimulationSettings,
        *,
        learner: Learner | None = None,
        other: OtherScheduler = OtherScheduler.NONE,
        counts_from: int = 0,
    ) -> None:
        self.name = name
        self.queue_rules = mode.queue_rules
        self._on_infeasible = OnInfeasible.REJECT if mode.may_reject else OnInfeasible.BEST_EFFORT
        self._learner = learner or Learner(policy)
        self._fleet = Fleet()
        self._now_s = 0.0
        self._is_served = settings.runs_as is RunsAs.REQUEST
        rng = Random(0)
        self._scheduler = Scheduler(
            Parts(policy, self._learner, self._fleet, Ledger(), Circuits(rng)),
            inputs=Inputs(HeldClock(lambda: self._now_s, lambda: self._now_s)),
            rules=DispatchRules(mode.order, Admission(mode.min_hit_chance)),
            shares=Shares(),
            transmission_j_per_bit={tier: settings.j_per_bit(tier.value) for tier in Tier},
            rng=rng,
            other=other,
            has_readers=False,
        )
        self.savings = Savings(is_shadow=other is OtherScheduler.PERLLM)
        self._counts_from = counts_from
        self._requests: dict[str, PlacementRequest] = {}
        self._truths: dict[str, Request] = {}
        self._decisions: dict[str, Decision] = {}
        self._residences: dict[str, Residence] = {}
        self._bound_s: dict[str, float] = {}

    def join(self, node: NodeSpec, now_s: float) -> None:
        """Add a node to the fleet."""
        self._now_s = now_s
        if isinstance(self._learner, TrueLearner):
            self._learner.seed_node(node)
        uplink = Bandwidth(node.link.bandwidth_bps, 0.0)
        self._scheduler.put_node(
            Node(
                name=node.name,
                uid=node.name,
                tier=Tier(node.tier),
                gpu_type=node.gpu.product,
                slots=float(node.slots),
                addresses=frozenset(),
                is_open=True,
                gpus=float(node.gpus),
                cpu_cores=float(node.gpu.cpus),
                memory_bytes=node.gpu.memory_gib * 2.0**30,
            ),
            uplink,
        )
        if node.resident:
            self._scheduler.warm(node.name, node.model)
        if self._is_served:
            self._scheduler.put_serving(node.name, Serving(models=frozenset({node.model}), slots=float(node.slots)))

    def leave(self, node: str, now_s: float) -> None:
        """Remove a node from the fleet."""
        self._now_s = now_s
        self._scheduler.remove_node(node)

    def observe(self, readings: Mapping[str, NodeReading], now_s: float) -> None:
        """Update what is known from a scrape."""
        self._now_s = now_s
        known = {name: reading for name, reading in readings.items() if name in self._fleet.nodes}
        if isinstance(self._learner, TrueLearner):
            for name, reading in known.items():
                self._learner.observe_speed(name, reading.speed)
        self._scheduler.put_bandwidth(
            {name: Bandwidth(reading.bandwidth_bps, reading.received_bps) for name, reading in known.items()}
        )

    def submit(self, number: int, request: Request, now_s: float) -> None:
        """Queue a task."""
        self._now_s = now_s
        task_id = str(number)
        asked = self._note_arrival(task_id, request)
        self._scheduler.submit(PendingTask(task_id, 1, 1, asked, on_infeasible=self._on_infeasible))

    def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
        """Return what the dispatch loop decides now; a task that starts is bound at once, to the chosen node.

        Rounds in which tasks only wait are followed by the next one that is due now.
        """
        self._now_s = now_s
        actions = self._decide_round()
        while not actions and self._scheduler.next_s() <= now_s:
            actions = self._decide_round()
        return actions

    def _decide_round(self) -> list[SendTask | RejectTask]:
        actions: list[SendTask | RejectTask] = []
        for action in self._scheduler.due():
            match action:
                case Start():
                    actions.append(self._send(action))
                case Reject():
                    actions.append(RejectTask(int(action.task.key)))
                case SetAside():
                    raise action.error
        return actions

    def next_decision_s(self) -> float:
        """Return when the dispatch loop must be called next even if nothing happens."""
        return max(self._scheduler.next_s(), self._now_s)

    def bind(self, number: int, now_s: float) -> None:
        """Note when the node took a task; the task is in flight from the decision on."""
        self._bound_s[str(number)] = now_s

    def release(self, number: int, now_s: float, output_tokens: int | None = None) -> None:
        """Remove a task in flight, and learn from its end if that is its deadline."""
        self._now_s = now_s
        task_id = str(number)
        self._scheduler.withdraw(task_id)
        decision = self._decisions.get(task_id)
        if decision is None:
            return
        residence = self._scheduler.end(task_id, decision.node, output_tokens)
        if residence is None:
            return
        if self.queue_rules.ends_at_deadline and now_s >= self._requests[task_id].due_s - DEADLINE_SLACK_S:
            del self._decisions[task_id]
            began = replace(decision, decided_s=self._bound_s.pop(task_id, now_s))
            self._scheduler.learn_ended(judge_ended(began, now_s, residence))
        else:
            self._residences[task_id] = residence

    def learn(self, completion: Completion, now_s: float) -> None:
        """Learn from a completed task, as the operator does once its energy is measured."""
        self._now_s = now_s
        task_id = str(completion.number)
        decision, residence = self._decisions.pop(task_id, None), self._residences.pop(task_id, None)
        self._bound_s.pop(task_id, None)
        if decision is None or residence is None:
            return
        request = self._requests[task_id]
        run = CompletedRun(
            prompt_tokens=float(request.prompt_tokens),
            output_tokens=float(completion.output_tokens),
            bound_s=completion.bound_s,
            finished_s=completion.finished_s,
            transfer_s=completion.transfer_s,
            latency_s=completion.finished_s - (request.due_s - request.deadline_s),
            deadline_s=request.deadline_s,
            inference_energy_j=completion.energy_j,
            residence=residence,
        )
        outcome = judge_run(decision, run)
        ending = self._scheduler.review(decision, request.due_s, outcome)
        if ending is not None and completion.number >= self._counts_from:
            self.savings.note(ending)
        self._scheduler.learn(outcome, decision.gpu_type)

    def _note_arrival(self, task_id: str, request: Request) -> PlacementRequest:
        """Return what a task that has arrived asks of placement."""
        is_clairvoyant = isinstance(self._learner, TrueLearner)
        asked = PlacementRequest(
            task_id=task_id,
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens if is_clairvoyant else request.hint_tokens,
            input_bytes=request.input_bytes,
            tiers=ALL_TIERS,
            due_s=request.at_s + request.deadline_s,
            deadline_s=request.deadline_s,
            demand=POD_DEMAND,
            is_served=self._is_served,
            service=request.service,
        )
        self._truths[task_id], self._requests[task_id] = request, asked
        self._scheduler.note_arrival(asked)
        return asked

    def _send(self, start: Start) -> SendTask:
        """Do what the extender and the controller do from the decision to the binding of a pod, or to the request."""
        task, placement = start.task, start.placement
        node = placement.node
        decision = None if node is None else self._scheduler.settle(task.uid, node)
        if node is None or decision is None:
            raise AssertionError(f"task {task.key} starts without a node")
        self._scheduler.note_created(task)
        self._scheduler.confirm(decision, placement.request.slots)
        self._scheduler.withdraw(task.key)
        self._decisions[task.key] = decision
        return SendTask(int(task.key), node, self._forecast(decision, placement), decision.assessment.explored)

    def _forecast(self, decision: Decision, placement: Placement) -> Forecast:
        arm, outlook = placement.arm_of(decision.node), placement.outlook
        tokens = float(self._truths[decision.task_id].output_tokens)
        given_s = decision.forecast.latency_given_s(tokens)
        return Forecast(
            latency_s=decision.forecast.times.latency_s,
            latency_low_s=decision.forecast.latency_low_s,
            latency_high_s=decision.forecast.latency_high_s,
            energy_j=decision.forecast.energy.energy_j,
            given_latency_s=given_s,
            given_low_s=given_s * exp(float(outlook.low[arm])),
            given_high_s=given_s * exp(float(outlook.high[arm])),
            given_energy_j=decision.forecast.energy_given_j(tokens),
            hit_chance=decision.forecast.hit_chance,
        )
