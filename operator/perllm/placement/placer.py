"""Chooses a node for a task: builds the arms from memory, asks the policy, keeps what is in flight.

    outlook = learned laws (Learner) x nodes (Fleet) x tasks in flight (Ledger) x metrics (Snapshot, already in Fleet)

Nothing here waits: it is the hot path, called by the extender for every pod.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perllm.api.task import Tier
from perllm.learning.learner import Learner
from perllm.placement.circuits import Circuits
from perllm.placement.decision import Decision
from perllm.placement.eligibility import Eligibility, Gate
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Flight, Ledger, Residence
from perllm.placement.outlook import LEAST_S, Inference, Outlook, look_out
from perllm.placement.reasons import explain_arm
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import EXCLUDED_TIER, Arms, Choice, FloatArray, IntArray, Policy, TaskFeatures

BITS_PER_BYTE = 8

REFRESH_S = 0.05
"""How old the harm to tasks in flight may be."""

REFRESH_SHARE = 0.02
MIN_PLACED = 8
"""In a burst it is worked out anew after so many placements too, or after this share of all in flight if that is more:
so its cost per decision stays bounded."""

_QUANTILES = np.array([-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645])
"""Middles of ten equally likely ranges of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The policy's choice among `names`, and what it was made from; arrays have one entry per name.

    Attributes:
        obstacle: what keeps the task from all of them, room aside, in words; empty if nothing does.
    """

    request: PlacementRequest
    names: Sequence[str]
    rows: IntArray
    eligibility: Eligibility
    inference: Inference
    outlook: Outlook
    choice: Choice
    decided_s: float
    obstacle: str = ""

    @property
    def arms(self) -> Arms:
        """What the policy chose among."""
        return self.outlook.arms

    @property
    def arm(self) -> int | None:
        """Where the task goes if it is to start now: the policy's choice, else the best with room; None without."""
        return self.best_with_room if self.choice.arm is None else self.choice.arm

    @property
    def node(self) -> str | None:
        """The node of `arm`."""
        arm = self.arm
        return None if arm is None else self.names[arm]

    @property
    def open_scores(self) -> FloatArray:
        """The policy's scores, -inf where there is no room for the task now; shape (n,)."""
        has_room = self.arms.compute_used <= self.arms.compute_capacity
        scores: FloatArray = np.where(has_room, self.choice.scores, -np.inf)
        return scores

    @property
    def best_with_room(self) -> int | None:
        """The arm of the highest score among those with room."""
        scores = self.open_scores
        return int(np.argmax(scores)) if (scores > -np.inf).any() else None

    @property
    def favourite(self) -> int | None:
        """The arm that the task would best run on, with room or without; None when no arm may take it."""
        if self.choice.arm is not None or self.choice.awaited is not None:
            return self.choice.awaited if self.choice.arm is None else self.choice.arm
        scores = self.choice.scores
        return int(np.argmax(scores)) if (scores > -np.inf).any() else None


class Placer:
    """Places tasks.

    Args:
        policy: chooses among arms.
        learner: predicts.
        fleet: the nodes.
        ledger: the tasks in flight.
        circuits: of the nodes.
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
        circuits: Circuits,
        transmission_j_per_bit: dict[Tier, float],
        metrics_age_s: Callable[[str], float | None],
        unix_now: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.learner = learner
        self.fleet = fleet
        self.ledger = ledger
        self.circuits = circuits
        self._gate = Gate(fleet, ledger, circuits)
        self._policy = policy
        self._transmission_j_per_bit = np.array([transmission_j_per_bit[tier] for tier in Tier])
        self._metrics_age_s = metrics_age_s
        self._unix_now = unix_now
        self.now = now
        self._refreshed_s = -np.inf
        self._refreshed_at = 0

    def note_arrival(self, request: PlacementRequest) -> None:
        """Take a task that has arrived into the mean task of its model."""
        length = self.learner.expect_length(request.model, request.prompt_tokens, request.output_tokens)
        self.learner.note_arrival(request.model, request.prompt_tokens, length.mean)

    def choose(self, request: PlacementRequest, candidates: Sequence[str] | None = None) -> Placement:
        """Choose among `candidates`, or among the whole fleet; reserves nothing."""
        names, rows = self._nodes(candidates)
        now_s, decided_s = self.now(), self._unix_now()
        self._refresh(now_s)
        eligibility = self._gate.find(request, rows, now_s)
        length = self.learner.expect_length(request.model, request.prompt_tokens, request.output_tokens)
        job = Inference(
            request.model,
            request.prompt_tokens,
            float(request.input_bytes * BITS_PER_BYTE),
            request.due_s - decided_s,
            length,
            request.demand.slots,
            request.namespace,
        )
        outlook = look_out(
            job,
            rows,
            eligibility.allowed,
            self.learner,
            self.fleet,
            self.ledger,
            self._transmission_j_per_bit[self.fleet.tier_codes(rows)],
            now_s,
        )
        task = TaskFeatures(
            request.model,
            request.prompt_tokens,
            length.mean,
            request.input_bytes,
            job.time_left_s,
            request.deadline_s,
        )
        choice = _tell_excluded(self._policy.choose(task, outlook.arms), eligibility)
        obstacle = self._gate.describe(request, eligibility, names) if eligibility.is_blocked else ""
        return Placement(request, names, rows, eligibility, job, outlook, choice, decided_s, obstacle)

    def reserve(self, placement: Placement, node: str) -> None:
        """Count the task as in flight on `node` until it is confirmed, released or expired."""
        arm, now_s = placement.names.index(node), self.now()
        self.learner.load(int(placement.rows[arm]), placement.inference.model, now_s)
        self.ledger.reserve(self._flight(placement, arm), now_s)
        request = placement.request
        self.circuits.note_placed(node, request.task_id, request.namespace, request.model)

    def confirm(self, decision: Decision, slots: float = 1.0) -> None:
        """Count a bound task, which takes so many slots of its node, as in flight."""
        now_s = self.now()
        # First, so that the model is known and its lengths have a shape of their own.
        self.learner.load(self.fleet.row(decision.node), decision.model, now_s)
        self.ledger.confirm(self._restore(decision, slots, now_s - self._unix_now()), now_s)

    def note_bandwidth(self) -> None:
        """Let the ledger know how fast the nodes' links drain, after the fleet was told."""
        _, rows = self.fleet.all_nodes()
        self.ledger.put_bandwidth(rows, self.fleet.bandwidth_capacity_bps(rows))

    def release_reservation(self, task_id: str) -> None:
        """Take a reservation back; a task that is bound stays in flight."""
        self.ledger.cancel(task_id, self.now())

    def release(self, task_id: str) -> Residence | None:
        """Forget a task in flight; return what it met on its node, None if it was not in flight."""
        return self.ledger.release(task_id, self.now())

    def expire(self) -> list[str]:
        """Forget reservations that were never carried out."""
        return self.ledger.expire(self.now())

    def explain(self, placement: Placement, name: str) -> Decision:
        """Return the decision for the node `name`, which is the chosen one unless kube-scheduler overruled it."""
        arm = placement.names.index(name)
        choice, outlook, job = placement.choice, placement.outlook, placement.inference
        arms, node, request = outlook.arms, self.fleet.nodes[name], placement.request
        score, chosen = float(choice.scores[arm]), arm == choice.arm
        low_s, high_s = latency_range_s(placement, arm)
        return Decision(
            task_id=request.task_id,
            policy=self._policy.name,
            model=request.model,
            node=name,
            tier=node.tier,
            gpu_type=node.gpu_type,
            decided_s=placement.decided_s,
            latency_s=float(arms.latency_s[arm]),
            latency_low_s=low_s,
            latency_high_s=high_s,
            hit_chance=float(arms.hit_chance[arm]),
            harm=float(arms.harm[arm]),
            energy_j=float(arms.energy_j[arm]),
            transmission_energy_j=float(outlook.transmission_j[arm]),
            time_left_s=job.time_left_s,
            demand_bps=float(outlook.demand_bps[arm]),
            occupancy=float(outlook.running[arm]) + 1.0,
            prompt_tokens=request.prompt_tokens,
            hint_tokens=request.output_tokens,
            output_tokens=job.length.mean,
            length_centre=job.length.centre,
            length_spread=job.length.spread,
            input_bits=job.bits,
            gpus=float(self.fleet.gpus(placement.rows[arm : arm + 1])[0]),
            fixed_s=float(outlook.fixed_s[arm]),
            transfer_s=float(outlook.transfer_s[arm]),
            reading_s=float(outlook.reading_s[arm]),
            work_s=float(outlook.work_s[arm]),
            token_s=float(outlook.token_s[arm]),
            solo_token_s=float(outlook.solo_token_s[arm]),
            contention_s=float(outlook.contention_s[arm]),
            fixed_j=float(outlook.fixed_j[arm]),
            token_j=float(outlook.token_j[arm]),
            cold=float(outlook.cold[arm]),
            score=score if np.isfinite(score) else None,
            slack=choice.slack,
            resource_slack=choice.resource_slack,
            meets_deadline=choice.meets_deadline if chosen else bool(arms.latency_s[arm] <= job.time_left_s),
            explored=choice.explored and chosen,
            candidates=choice.candidates,
            rejected=choice.excluded,
            metrics_age_s=self._metrics_age_s(name),
            reason=explain_arm(placement.names, choice, arm, placement.arm),
        )

    def trim(self) -> None:
        """Let the learner forget models that nothing is in flight of, when it knows too many."""
        self.learner.trim(self.ledger.models)

    def _refresh(self, now_s: float) -> None:
        placed = self.ledger.placed - self._refreshed_at
        if now_s - self._refreshed_s < REFRESH_S and placed < max(MIN_PLACED, REFRESH_SHARE * len(self.ledger)):
            return
        self.ledger.refresh(now_s, self.learner.shapes)
        self._refreshed_s, self._refreshed_at = now_s, self.ledger.placed

    def _nodes(self, candidates: Sequence[str] | None) -> tuple[Sequence[str], IntArray]:
        if candidates is None:
            return self.fleet.all_nodes()
        names = self.fleet.known(candidates)
        return names, self.fleet.rows(names)

    def _flight(self, placement: Placement, arm: int) -> Flight:
        outlook, job, now_s = placement.outlook, placement.inference, self.now()
        return Flight(
            task_id=placement.request.task_id,
            model=job.model,
            row=int(placement.rows[arm]),
            gpus=float(self.fleet.gpus(placement.rows[arm : arm + 1])[0]),
            demand_bps=float(outlook.demand_bps[arm]),
            input_bits=job.bits,
            prompt_tokens=job.prompt_tokens,
            reading_s=float(outlook.reading_s[arm]),
            work_s=float(outlook.work_s[arm]),
            due_s=now_s + job.time_left_s,
            writes_from_s=now_s + float(outlook.fixed_s[arm]),
            solo_token_s=float(outlook.solo_token_s[arm]),
            contention_s=float(outlook.contention_s[arm]),
            length_centre=job.length.centre,
            length_spread=job.length.spread,
            length_kind=self.learner.length_kind(job.model, has_hint=placement.request.output_tokens is not None),
            slots=job.slots,
        )

    def _restore(self, decision: Decision, slots: float, offset_s: float) -> Flight:
        """Return what is in flight by a decision; `offset_s` is the ledger's clock less Unix time."""
        decided_s = decision.decided_s + offset_s
        return Flight(
            task_id=decision.task_id,
            model=decision.model,
            row=self.fleet.row(decision.node),
            gpus=decision.gpus,
            demand_bps=decision.demand_bps,
            input_bits=decision.input_bits,
            prompt_tokens=decision.prompt_tokens,
            reading_s=decision.reading_s,
            work_s=decision.work_s,
            due_s=decided_s + decision.time_left_s,
            writes_from_s=decided_s + decision.fixed_s,
            solo_token_s=decision.solo_token_s,
            contention_s=decision.contention_s,
            length_centre=decision.length_centre,
            length_spread=decision.length_spread,
            length_kind=self.learner.length_kind(decision.model, has_hint=decision.hint_tokens is not None),
            slots=slots,
        )


def _tell_excluded(choice: Choice, eligibility: Eligibility) -> Choice:
    """Return the choice with the true reasons of nodes that were kept from the policy, which knows one for all."""
    if not eligibility.excluded:
        return choice

    def count_excluded() -> Mapping[str, int]:
        judged = {reason: count for reason, count in choice.excluded.items() if reason != EXCLUDED_TIER}
        return {**eligibility.excluded, **judged}

    return replace(choice, count_excluded=count_excluded)


def latency_range_s(placement: Placement, arm: int) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of the latency on a node, the length of the answer being unknown."""
    outlook = placement.outlook
    times_s = outlook.fixed_s[arm] + outlook.token_s[arm] * placement.inference.length.points
    scale = float(outlook.scale[arm])
    logs = np.log(np.maximum(times_s, LEAST_S))
    grid = np.sort((logs[:, None] + scale * _QUANTILES).ravel())
    last = len(grid) - 1
    return float(np.exp(grid[round(0.05 * last)])), float(np.exp(grid[round(0.95 * last)]))
