"""Chooses a node for a task: builds the arms from memory, asks the policy, keeps what is in flight.

    outlook = learned laws (Learner) x nodes (Fleet) x tasks in flight (Ledger) x metrics (Snapshot, already in Fleet)

Nothing here waits: it is the hot path, called by the extender for every pod.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perllm.api.task import Tier
from perllm.learning.learner import Learner
from perllm.learning.lengths import Length
from perllm.placement.alternatives import Alternative, list_alternatives
from perllm.placement.circuits import Circuits
from perllm.placement.costs import JouleCosts
from perllm.placement.decision import Assessment, Decision
from perllm.placement.eligibility import Eligibility, Gate
from perllm.placement.fleet import Fleet
from perllm.placement.flight import Flight, Residence
from perllm.placement.forecast import Inference
from perllm.placement.forecaster import Forecaster
from perllm.placement.ledger import Ledger
from perllm.placement.loaded_models import LoadedModels
from perllm.placement.outlook import Outlook
from perllm.placement.reasons import explain_arm
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import EXCLUDED_TIER, Arms, Choice, FloatArray, IntArray, Policy, TaskFeatures

BITS_PER_BYTE = 8

REFRESH_S = 0.05
"""How old the harm to tasks in flight may be."""

REFRESH_SHARE = 0.02
MIN_PLACED = 8
"""In a burst it is also recomputed after this many placements, or after this share of all tasks in flight if that is
more, so that its cost per decision is bounded. Of a large fleet it is recomputed in turns, so that no decision waits
for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The policy's choice among `names`, and what it is based on; arrays have one entry per name.

    Attributes:
        obstacle: why no node may take the task, apart from room, in words; empty if some node may.
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
        return int(scores.argmax()) if (scores > -np.inf).any() else None

    @property
    def is_for_room(self) -> bool:
        """Whether a task that does not start waits for nothing but room: for that of a better node, or for any."""
        return self.choice.awaited is not None or (self.favourite is not None and self.best_with_room is None)

    def arm_of(self, node: str) -> int:
        """Return the arm of a node, trying the chosen one first, since a large fleet takes long to search."""
        arm = self.arm
        return arm if arm is not None and self.names[arm] == node else self.names.index(node)

    def name_best(self, count: int) -> tuple[str, ...]:
        """Return the node of `arm` and the next best ones with room, `count` at most; none if no node has room."""
        scores, node = self.open_scores, self.node
        if node is None or not count:
            return ()
        best = np.argsort(-scores, kind="stable")[:count].tolist()
        others = [self.names[arm] for arm in best if scores[arm] > -np.inf and self.names[arm] != node]
        return node, *others[: count - 1]

    @property
    def favourite(self) -> int | None:
        """The best arm for the task, whether or not it has room; None if no arm may take it."""
        if self.choice.arm is not None or self.choice.awaited is not None:
            return self.choice.awaited if self.choice.arm is None else self.choice.arm
        scores = self.choice.scores
        return int(scores.argmax()) if (scores > -np.inf).any() else None


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
        loaded: models that nodes count as having, besides those that are known to be loaded.
        costs: what joules cost; the same everywhere and always unless given.
        has_readers: whether decisions are explained to people, with reason, alternatives and excluded nodes.
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
        loaded: LoadedModels | None = None,
        costs: JouleCosts | None = None,
        has_readers: bool = True,
    ) -> None:
        self._learner = learner
        self._fleet = fleet
        self._ledger = ledger
        self._circuits = circuits
        self._gate = Gate(fleet, ledger, circuits)
        self._policy = policy
        j_per_bit = np.array([transmission_j_per_bit[tier] for tier in Tier])
        self._forecaster = Forecaster(learner, fleet, ledger, j_per_bit, loaded or LoadedModels())
        self._costs = costs or JouleCosts()
        self._has_readers = has_readers
        self._metrics_age_s = metrics_age_s
        self._unix_now = unix_now
        self._now = now
        self._refreshed_s = -np.inf
        self._refreshed_at = 0

    def expect_length(self, request: PlacementRequest) -> Length:
        """Return what is known of the answers to all prompts of a task together."""
        count, hint = request.prompts, request.output_tokens
        hint_each = None if hint is None else hint / count
        prompt_each = request.prompt_tokens / count
        return self._learner.expect_length(request.model, prompt_each, hint_each, request.origin).repeated(count)

    def note_arrival(self, request: PlacementRequest) -> None:
        """Update the mean task of a model by one that has arrived."""
        length = self.expect_length(request)
        self._learner.note_arrival(request.model, request.prompt_tokens, length.mean)

    def choose(self, request: PlacementRequest, candidates: Sequence[str] | None = None) -> Placement:
        """Choose among `candidates`, or among the whole fleet; reserves nothing."""
        names, rows = self._nodes(candidates)
        now_s, decided_s = self._now(), self._unix_now()
        self._refresh(now_s)
        eligibility = self._gate.find(request, rows, now_s)
        length = self.expect_length(request)
        inference = _describe(request, length, request.due_s - decided_s)
        outlook = self._forecaster.forecast(
            request,
            inference,
            length.points,
            rows=rows,
            allowed=eligibility.allowed,
            joule_cost=self._costs.at(rows, decided_s),
            now_s=now_s,
        )
        task = TaskFeatures(
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            output_tokens=length.mean,
            input_bytes=request.input_bytes,
            time_left_s=inference.time_left_s,
            deadline_s=request.deadline_s,
        )
        return Placement(
            request=request,
            names=names,
            rows=rows,
            eligibility=eligibility,
            inference=inference,
            outlook=outlook,
            choice=_with_true_reasons(self._policy.choose(task, outlook.arms), eligibility),
            decided_s=decided_s,
            obstacle=self._gate.describe(request, eligibility, names) if eligibility.is_blocked else "",
        )

    def reserve(self, placement: Placement, node: str) -> None:
        """Count the task as in flight on `node` until it is confirmed, released or expired.

        If it is already there by the same decision, only its time begins again.
        """
        arm, now_s = placement.arm_of(node), self._now()
        request, inference, row = placement.request, placement.inference, int(placement.rows[arm])
        if self._find_flight(placement, row) is not None:
            self._ledger.renew(request.task_id, now_s)
            return
        self._learner.load(row, inference.model, now_s)
        if request.task_id not in self._ledger:
            allowed = placement.arms.allowed
            work_s = placement.outlook.times.work_s[allowed]
            self._ledger.note_usual(placement.rows[allowed], work_s, work_s / placement.arms.work[allowed])
        flight = Flight(
            task_id=request.task_id,
            row=row,
            placed_s=now_s,
            inference=inference,
            forecast=placement.outlook.at(arm),
            length_kind=self._length_kind(inference),
            slots=request.demand.slots,
            resource=request.demand.resource,
        )
        self._ledger.reserve(flight, now_s)
        self._circuits.note_placed(node, request.task_id, request.namespace, request.model)

    def confirm(self, decision: Decision, slots: float = 1.0, resource: str = "") -> None:
        """Count a bound task, which takes so many slots of its node, as in flight."""
        now_s, row = self._now(), self._fleet.row(decision.node)
        # First, so that the model is known and its lengths have a shape of their own.
        self._learner.load(row, decision.inference.model, now_s)
        flight = Flight(
            task_id=decision.task_id,
            row=row,
            placed_s=decision.decided_s + (now_s - self._unix_now()),
            inference=decision.inference,
            forecast=decision.forecast,
            length_kind=self._length_kind(decision.inference),
            slots=slots,
            resource=resource,
        )
        self._ledger.confirm(flight, now_s)

    def note_bandwidth(self) -> None:
        """Pass the bandwidth of the nodes on from the fleet to the ledger."""
        _, rows = self._fleet.all_nodes()
        self._ledger.put_bandwidth(rows, self._fleet.bandwidth_capacity_bps(rows))

    def release_reservation(self, task_id: str) -> int | None:
        """Undo a reservation; return the row of its node. None if there is none: a task that is bound stays."""
        flight = self._ledger.cancel(task_id, self._now())
        if flight is None:
            return None
        model = flight.inference.model
        if not self._ledger.count(flight.row, model):
            self._learner.forget_load(flight.row, model, flight.placed_s)
        return flight.row

    def release(self, task_id: str) -> Residence | None:
        """Forget a task in flight; return what it met on its node, None if it was not in flight."""
        return self._ledger.release(task_id, self._now())

    def find_expired(self) -> list[str]:
        """Return the tasks of reservations that were not carried out in time."""
        return self._ledger.find_expired(self._now())

    def explain(self, placement: Placement, name: str) -> Decision:
        """Return the decision for the node `name`, which is the chosen one unless kube-scheduler overruled it."""
        arm, choice, node = placement.arm_of(name), placement.choice, self._fleet.nodes[name]
        flight = self._find_flight(placement, int(placement.rows[arm]))
        return Decision(
            task_id=placement.request.task_id,
            policy=self._policy.name,
            node=name,
            tier=node.tier,
            gpu_type=node.gpu_type,
            decided_s=placement.decided_s,
            metrics_age_s=self._metrics_age_s(name),
            reason=explain_arm(placement.names, choice, arm, placement.arm) if self._has_readers else "",
            inference=placement.inference,
            forecast=placement.outlook.at(arm) if flight is None else flight.forecast,
            assessment=_assess(placement, arm, choice.excluded if self._has_readers else {}),
            alternatives=self._list_alternatives(placement, arm) if self._has_readers else (),
        )

    def trim(self) -> None:
        """Let the learner forget models without tasks in flight, when it knows too many."""
        self._learner.trim(self._ledger.models)

    def _find_flight(self, placement: Placement, row: int) -> Flight | None:
        """Return the task in flight if this decision put it on that node."""
        flight = self._ledger.flight(placement.request.task_id)
        is_its = flight is not None and flight.row == row and flight.inference is placement.inference
        return flight if is_its else None

    def _refresh(self, now_s: float) -> None:
        """Recompute the harm to as many groups of tasks in flight as keep that to all of them recent enough."""
        ledger = self._ledger
        age = (now_s - self._refreshed_s) / REFRESH_S
        placed = (ledger.placed - self._refreshed_at) / max(MIN_PLACED, REFRESH_SHARE * len(ledger))
        turns = min(max(age, placed), 1.0) * ledger.groups
        if turns < 1.0:
            return
        ledger.refresh(now_s, self._learner.shapes, round(turns))
        self._refreshed_s, self._refreshed_at = now_s, ledger.placed

    def _nodes(self, candidates: Sequence[str] | None) -> tuple[Sequence[str], IntArray]:
        return self._fleet.all_nodes() if candidates is None else self._fleet.find(candidates)

    def _list_alternatives(self, placement: Placement, arm: int) -> tuple[Alternative, ...]:
        return list_alternatives(
            placement.names,
            placement.arms,
            placement.choice,
            arm,
            types=placement.outlook.types,
            gpu_type_of=self._gpu_type_of,
        )

    def _gpu_type_of(self, name: str) -> str:
        node = self._fleet.nodes.get(name)
        return node.gpu_type if node is not None else ""

    def _length_kind(self, inference: Inference) -> int:
        return self._learner.length_kind(inference.model, has_hint=inference.hint_tokens is not None)


def _describe(request: PlacementRequest, length: Length, time_left_s: float) -> Inference:
    """Return what a task asks of its model, given what is known of its answer."""
    return Inference(
        model=request.model,
        prompt_tokens=request.prompt_tokens,
        hint_tokens=request.output_tokens,
        output_tokens=length.mean,
        length_centre=length.centre,
        length_spread=length.spread,
        input_bits=float(request.input_bytes * BITS_PER_BYTE),
        time_left_s=time_left_s,
        is_served=request.is_served,
        prompts=request.prompts,
        service=request.origin,
    )


def _assess(placement: Placement, arm: int, excluded: Mapping[str, int]) -> Assessment:
    choice, is_chosen = placement.choice, arm == placement.choice.arm
    score = float(choice.scores[arm])
    is_in_time = bool(placement.arms.latency_s[arm] <= placement.inference.time_left_s)
    return Assessment(
        score=score if np.isfinite(score) else None,
        slack=choice.slack,
        resource_slack=choice.resource_slack,
        meets_deadline=choice.meets_deadline if is_chosen else is_in_time,
        explored=choice.explored and is_chosen,
        candidates=choice.candidates,
        excluded=excluded,
    )


def _with_true_reasons(choice: Choice, eligibility: Eligibility) -> Choice:
    """Return the choice with the reasons for which nodes were excluded before the policy saw the arms."""
    if not eligibility.excluded:
        return choice

    def count_excluded() -> Mapping[str, int]:
        judged = {reason: count for reason, count in choice.excluded.items() if reason != EXCLUDED_TIER}
        return {**eligibility.excluded, **judged}

    return replace(choice, count_excluded=count_excluded)
