"""Chooses a node for a task: builds the arms from memory, asks the policy, keeps what is in flight.

    arms = learned laws (Learner) x nodes (Fleet) x tasks in flight (Ledger) x metrics (Snapshot, already in Fleet)

Nothing here waits: it is the hot path, called by the extender for every pod.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from perllm.api.task import Tier
from perllm.learning.learner import Learner
from perllm.placement.decision import Decision
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.policy.problem import Arms, Choice, FloatArray, IntArray, Policy, Task

BITS_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class Request:
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
    """

    task_id: str
    model: str
    prompt_tokens: int
    output_tokens: int | None
    input_bytes: int
    tiers: frozenset[Tier]
    due_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Placement:
    """The policy's choice among `names`, and what it was made from; arrays have one entry per name."""

    request: Request
    names: Sequence[str]
    rows: IntArray
    arms: Arms
    choice: Choice
    transmission_energy_j: FloatArray
    demand_bps: FloatArray
    output_tokens: float
    decided_s: float
    time_left_s: float

    @property
    def node(self) -> str | None:
        """The chosen node; None when no node can take the task now."""
        return None if self.choice.arm is None else self.names[self.choice.arm]


class Placer:
    """Places tasks.

    Args:
        policy: chooses among arms.
        learner: predicts.
        fleet: the nodes.
        ledger: the tasks in flight.
        transmission_j_per_bit: energy of moving one bit to a node, by tier.
        metrics_age_s: returns the age of a node's metrics, None when there are none.
        unix_now: wall clock, for deadlines.
        now: monotonic clock, for the ledger.
    """

    def __init__(
        self,
        policy: Policy,
        learner: Learner,
        fleet: Fleet,
        ledger: Ledger,
        *,
        transmission_j_per_bit: dict[Tier, float],
        metrics_age_s: Callable[[str], float | None],
        unix_now: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.learner = learner
        self.fleet = fleet
        self.ledger = ledger
        self._policy = policy
        self._transmission_j_per_bit = np.array([transmission_j_per_bit[tier] for tier in Tier])
        self._metrics_age_s = metrics_age_s
        self._unix_now = unix_now
        self._now = now

    def choose(self, request: Request, candidates: Sequence[str] | None = None) -> Placement:
        """Choose among `candidates`, or among the whole fleet; reserves nothing."""
        names = self.fleet.known(self.fleet.nodes if candidates is None else candidates)
        rows = self.fleet.rows(names)
        decided_s = self._unix_now()
        time_left_s = request.due_s - decided_s
        bits = float(request.input_bytes * BITS_PER_BYTE)
        demand_bps = self._demand_bps(rows, bits, time_left_s)
        output_tokens = float(request.output_tokens or self.learner.expected_output_tokens(request.model))
        transmission_energy_j = bits * self._transmission_j_per_bit[self.fleet.tier_codes(rows)]
        task = Task(
            request.model, request.prompt_tokens, output_tokens, request.input_bytes, time_left_s, request.deadline_s
        )
        arms = self._arms(request, task, rows, bits, demand_bps, transmission_energy_j)
        choice = self._policy.choose(task, arms)
        return Placement(
            request, names, rows, arms, choice, transmission_energy_j, demand_bps, output_tokens, decided_s, time_left_s
        )

    def reserve(self, placement: Placement, node: str) -> None:
        """Count the task as in flight on `node` until it is confirmed, released or expired."""
        request = placement.request
        demand_bps = float(placement.demand_bps[placement.names.index(node)])
        self.ledger.reserve(request.task_id, request.model, self.fleet.row(node), demand_bps, self._now())

    def confirm(self, decision: Decision) -> None:
        """Count a bound task as in flight."""
        row = self.fleet.row(decision.node)
        self.ledger.confirm(decision.task_id, decision.model, row, decision.demand_bps, self._now())

    def release_reservation(self, task_id: str) -> None:
        """Take a reservation back; a task that is bound stays in flight."""
        self.ledger.cancel(task_id, self._now())

    def release(self, task_id: str) -> float | None:
        """Forget a task in flight; return the mean occupancy of its node, None if it was not in flight."""
        return self.ledger.release(task_id, self._now())

    def expire(self) -> list[str]:
        """Forget reservations that were never carried out."""
        return self.ledger.expire(self._now())

    def explain(self, placement: Placement, name: str) -> Decision:
        """Return the decision for the node `name`, which is the chosen one unless kube-scheduler overruled it."""
        arm = placement.names.index(name)
        choice, arms, node = placement.choice, placement.arms, self.fleet.nodes[name]
        score, latency_s = float(choice.scores[arm]), float(arms.latency_s[arm])
        chosen = arm == choice.arm
        request, occupancy = placement.request, float(arms.compute_used[arm])
        deviation_s = self.learner.latency_deviation_s(
            request.model, int(placement.rows[arm]), request.prompt_tokens, placement.output_tokens, occupancy
        )
        return Decision(
            task_id=request.task_id,
            policy=self._policy.name,
            model=request.model,
            node=name,
            tier=node.tier,
            gpu_type=node.gpu_type,
            decided_s=placement.decided_s,
            latency_s=latency_s,
            latency_bound_s=latency_s + deviation_s,
            energy_j=float(arms.energy_j[arm]),
            transmission_energy_j=float(placement.transmission_energy_j[arm]),
            time_left_s=placement.time_left_s,
            demand_bps=float(placement.demand_bps[arm]),
            occupancy=occupancy,
            output_tokens=placement.output_tokens,
            score=score if np.isfinite(score) else None,
            slack=choice.slack,
            resource_slack=choice.resource_slack,
            meets_deadline=choice.meets_deadline if chosen else latency_s <= placement.time_left_s,
            explored=choice.explored and chosen,
            candidates=choice.candidates,
            rejected=choice.refused,
            metrics_age_s=self._metrics_age_s(name),
            reason=choice.reason if chosen else "kube-scheduler preferred this node to the policy's choice",
        )

    def _demand_bps(self, rows: IntArray, bits: float, time_left_s: float) -> FloatArray:
        """Return the uplink that would bring the input to each node in time.

        Nothing where the whole link could not: the task is late there (C1), and waiting for room (C3) would not help.
        """
        demand_bps = bits / time_left_s if time_left_s > 0 else np.inf
        return np.where(demand_bps <= self.fleet.bandwidth_capacity_bps(rows), demand_bps, 0.0)

    def _arms(
        self,
        request: Request,
        task: Task,
        rows: IntArray,
        bits: float,
        demand_bps: FloatArray,
        transmission_j: FloatArray,
    ) -> Arms:
        running = self.ledger.running(rows)
        capacity_bps = self.fleet.bandwidth_capacity_bps(rows)
        used_bps = np.maximum(self.fleet.bandwidth_used_bps(rows), self.ledger.demand_bps(rows))
        run_s, energy_j = self.learner.predict(
            request.model, rows, task.prompt_tokens, task.output_tokens, running + 1.0
        )
        # Whoever else uses the link, its transfers share it fairly with ours.
        free_bps = np.maximum(capacity_bps - used_bps, capacity_bps / (running + 2.0))
        return Arms(
            rows=rows,
            allowed=self.fleet.tier_allowed(rows, request.tiers),
            latency_s=run_s + bits / np.maximum(free_bps, 1.0),
            energy_j=energy_j + transmission_j,
            compute_used=running + 1.0,
            compute_capacity=self.fleet.slots(rows),
            bandwidth_used_bps=used_bps + demand_bps,
            bandwidth_capacity_bps=capacity_bps,
            in_flight=self.ledger.running_model(request.model, rows),
        )
