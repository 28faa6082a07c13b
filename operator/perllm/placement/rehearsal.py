"""What another scheduler would have done: the same tasks on the same nodes, with a ledger of its own.

The other scheduler is given each task when it arrives, and sees the nodes as its own earlier choices left them, not as
the real ones did: otherwise the nodes that one scheduler avoids would always look empty to the other. A task that finds
no room waits at its node. It ends when it has been there for as long as the laws say, given what it has met so far and
the length of its answer: its end is planned as if it were alone, and put off as needed.

That length is the real one as soon as the real task has ended. Until then it is the same quantile, drawn at the
beginning, of the lengths that are more than what the real task has written by then.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import TypeVar

import numpy as np

from perllm.guard import describe
from perllm.learning.learner import Learner
from perllm.learning.outcome import Outcome
from perllm.placement.away_nodes import LOOK_S, AwayNodes
from perllm.placement.counterfactual import Circumstances, Ending, Prospect, find_written, revise
from perllm.placement.decision import Decision
from perllm.placement.fleet import Fleet
from perllm.placement.flight import Flight, Residence
from perllm.placement.hindsight import read_circumstances
from perllm.placement.kube_scheduler import KubeScheduler
from perllm.placement.ledger import Ledger
from perllm.placement.loaded_models import LoadedModels
from perllm.placement.placer import Placement, Placer
from perllm.placement.rehearsed_run import MetThere, RehearsedRun, find_length
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import Feedback

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_RUNS = 2**15
"""Tasks that are followed at a time. A scheduler that rejects none, and ends none, of more tasks than its nodes can do
has ever more of them; those beyond are not compared."""

STEP_S = 0.02
"""An end is put off by at least so much, and not for less."""


class OtherScheduler(StrEnum):
    """Whose choices are rehearsed."""

    NONE = "none"
    KUBE_SCHEDULER = "kube-scheduler"
    PERLLM = "perllm"


class Rehearsal:
    """Follows the other scheduler.

    Args:
        placer: forecasts with `ledger`.
        ledger: of the tasks as the other scheduler has placed them.
        real: the ledger of the real tasks.
        loaded: the models that these have loaded.
        fleet: the nodes.
        learner: its laws.
        choose: returns the arm that the other scheduler chooses, None if it places the task nowhere; None to rehearse
            nothing.
        is_own: whether that is our own rule, next to the real choices of another.
        rng: draws the lengths of answers.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        placer: Placer,
        ledger: Ledger,
        loaded: LoadedModels,
        *,
        real: Ledger,
        fleet: Fleet,
        learner: Learner,
        choose: Callable[[Placement], int | None] | None,
        is_own: bool = False,
        rng: Random,
        now_s: Callable[[], float],
    ) -> None:
        self._placer = placer
        self._ledger = ledger
        self._real = real
        self._loaded = loaded
        self._fleet = fleet
        self._learner = learner
        self._choose = choose
        self._is_own = is_own
        self._now_s = now_s
        self._rng = rng
        self._prospects: dict[str, Prospect] = {}
        self._met: dict[str, MetThere] = {}
        self._runs: dict[str, RehearsedRun] = {}
        self._ends: list[tuple[float, str]] = []
        self._away = AwayNodes()

    def place(self, request: PlacementRequest) -> Prospect | None:
        """Give a task to the other scheduler unless it has it; return its choice, None if there is none.

        Requests to model servers are not placed by kube-scheduler, so there is none for them.
        """
        return _contain(f"task {request.task_id}", partial(self._place, request))

    def _place(self, request: PlacementRequest) -> Prospect | None:
        known = self._prospects.get(request.task_id)
        if known is not None or request.is_served or self._choose is None:
            return known
        now_s = self._now_s()
        self._end_tasks(now_s)
        running = self._runs.get(request.task_id)
        if running is not None:
            # It was forgotten, and has come back.
            self._prospects[request.task_id] = running.prospect
            return running.prospect
        if len(self._runs) >= MAX_RUNS:
            return None
        placement = self._placer.choose(request)
        arm = self._choose(placement)
        return None if arm is None else self._begin(placement, arm, now_s)

    def find(self, task_id: str) -> Prospect | None:
        """Return what was expected of a task on the other choice; None if there is none."""
        return self._prospects.get(task_id)

    def find_residence(self, task_id: str) -> Residence | None:
        """Return what a task has met on the node of the other choice so far; None if it was not rehearsed."""
        met = self._find_met(task_id)
        return None if met is None else met.residence

    def review(self, decision: Decision, due_s: float, outcome: Outcome | None) -> Ending | None:
        """Return what became of a task next to its counterfactual; None if it has none, or that is not known.

        Both sides are revised by what the task met on the real and on the rehearsed node, as far as that is known.

        Args:
            decision: by which it ran.
            due_s: Unix time of its deadline.
            outcome: of its run; None if it was ended at its deadline.
        """
        real, other = decision.to_prospect(), decision.counterfactual
        if other is None:
            return None
        other = self._prospects.get(decision.task_id, other)  # its node may have been lost since
        if other.node in self._away and decision.task_id in self._runs:
            return None
        if outcome is not None:
            real = self._revise(real, outcome.run.model, read_circumstances(outcome))
            other = self._revise_other(other, outcome)
        return Ending(
            real=real,
            other=other,
            output_tokens=decision.inference.output_tokens if outcome is None else outcome.output_tokens,
            due_s=due_s,
            is_met=outcome is not None and outcome.is_in_time,
            took_s=None if outcome is None else outcome.finished_s - decision.decided_s,
            energy_j=None if outcome is None else outcome.energy_j,
        )

    def judge_own(self, outcome: Outcome) -> Feedback | None:
        """Return what a task would have come to by our own choice; None if that is the real one, or there is none."""
        return _contain(f"task {outcome.run.task_id}", partial(self._judge_own, outcome))

    def _judge_own(self, outcome: Outcome) -> Feedback | None:
        known = self._prospects.get(outcome.run.task_id)
        if not self._is_own or known is None or known.node not in self._fleet.nodes:
            return None
        other, tokens = self._revise_other(known, outcome), outcome.output_tokens
        return Feedback(
            model=outcome.run.model,
            row=self._fleet.row(other.node),
            latency_s=other.at_s - (outcome.finished_s - outcome.latency_s) + other.forecast.latency_given_s(tokens),
            deadline_s=outcome.deadline_s,
            energy_j=other.forecast.energy_given_j(tokens),
            prompt_tokens=outcome.run.prompt_tokens,
            output_tokens=tokens,
            resource_slack=outcome.resource_slack,
        )

    def note_end(self, task_id: str, output_tokens: float) -> None:
        """Note how long the answer of the real task is, which has ended."""
        _contain(f"task {task_id}", partial(self._note_end, task_id, output_tokens))

    def _note_end(self, task_id: str, output_tokens: float) -> None:
        run, now_s = self._runs.get(task_id), self._now_s()
        if run is not None:
            self._follow(replace(run, output_tokens=output_tokens, is_observed=True), now_s)

    def lose_node(self, node: str) -> None:
        """Place the tasks again that the other scheduler has on a node which has left the cluster."""
        self._away.forget(node)
        _contain(f"node {node}", partial(self._lose_node, node))

    def note_node(self, node: str, *, answers: bool) -> None:
        """Note whether a node answers: as long as it does not, tasks do not end there, and then they are lost."""
        _contain(f"node {node}", partial(self._end_tasks, self._now_s()))
        self._away.note(node, self._now_s(), answers=answers)

    def _lose_node(self, node: str) -> None:
        now_s = self._now_s()
        self._end_tasks(now_s)
        lost = [run for run in self._runs.values() if run.prospect.node == node]
        for run in lost:
            del self._runs[run.flight.task_id]
            self._ledger.release(run.flight.task_id, now_s)
            self._loaded.forget(run.flight.row)
        for run in lost:
            self._place_again(run, now_s)

    def _place_again(self, run: RehearsedRun, now_s: float) -> None:
        task_id = run.flight.task_id
        exists = self._prospects.pop(task_id, None) is not None
        if self._place(run.request) is None:
            return
        again = self._runs[task_id]
        self._follow(
            replace(again, quantile=run.quantile, output_tokens=run.output_tokens, is_observed=run.is_observed), now_s
        )
        if not exists:
            del self._prospects[task_id]

    def forget(self, task_id: str) -> None:
        """Forget the choice for a task that exists no longer; in the rehearsal it runs on."""
        self._prospects.pop(task_id, None)
        self._met.pop(task_id, None)

    def note_bandwidth(self) -> None:
        """Pass the bandwidth of the nodes on to the ledger."""
        self._placer.note_bandwidth()

    def _find_met(self, task_id: str) -> MetThere | None:
        now_s = self._now_s()
        self._end_tasks(now_s)
        run, residence = self._runs.get(task_id), self._ledger.observe(task_id, now_s)
        if run is None or residence is None:
            return self._met.get(task_id)
        return self._describe_met(run, residence, now_s)

    def _describe_met(self, run: RehearsedRun, residence: Residence, now_s: float) -> MetThere:
        loads = self._ledger.loads(np.array([run.flight.row]), now_s, model=run.request.model)
        return MetThere(residence, run.find_met_s(now_s), float(loads.reading_share[0]))

    def _revise_other(self, other: Prospect, outcome: Outcome) -> Prospect:
        """Return what is expected under the other choice, given the real answer and what the task met there."""
        met = self._find_met(outcome.run.task_id)
        if met is None:
            return other
        run = read_circumstances(outcome)
        rehearsed = replace(run, residence=met.residence, met_s=met.in_s, reading_share=met.reading_share)
        return self._revise(other, outcome.run.model, rehearsed)

    def _revise(self, prospect: Prospect, model: str, run: Circumstances) -> Prospect:
        if prospect.node not in self._fleet.nodes:
            return prospect
        row = self._fleet.row(prospect.node)
        return revise(prospect, self._learner.laws(model, self._fleet.rows([prospect.node])), row, run=run)

    def _begin(self, placement: Placement, arm: int, now_s: float) -> Prospect:
        request, inference, name = placement.request, placement.inference, placement.names[arm]
        forecast, row = placement.outlook.at(arm), int(placement.rows[arm])
        has_hint = inference.hint_tokens is not None
        flight = Flight(
            task_id=request.task_id,
            row=row,
            placed_s=now_s,
            inference=inference,
            forecast=forecast,
            length_kind=self._learner.length_kind(inference.model, has_hint=has_hint),
            slots=request.demand.slots,
        )
        self._ledger.confirm(flight, now_s)
        self._loaded.note(inference.model, row, now_s)
        prospect = self._prospects[request.task_id] = Prospect(
            node=name,
            gpu_type=self._fleet.nodes[name].gpu_type,
            at_s=placement.decided_s,
            forecast=forecast,
            wait_s=float(placement.outlook.queue_s[arm]),
        )
        quantile = self._rng.random()
        length = find_length(flight, quantile, self._learner.shapes[flight.length_kind])
        self._runs[request.task_id] = RehearsedRun(request, prospect, flight, quantile, length)
        heappush(self._ends, (flight.writes_from_s + length * forecast.times.solo_token_s, request.task_id))
        return prospect

    def _follow(self, run: RehearsedRun, now_s: float) -> None:
        """Follow a task of which more is known than when it was placed, until its end."""
        self._runs[run.flight.task_id] = run
        heappush(self._ends, (max(self._find_end_s(run, now_s), now_s), run.flight.task_id))

    def _lengthen(self, run: RehearsedRun, end_s: float) -> RehearsedRun:
        """Return a task that is about to end with the length that its answer may have by what the real one has written.

        Without this, the answers of tasks that still run would be too short in the mean, as those of others are known.
        """
        task_id = run.flight.task_id
        real = None if run.is_observed else self._real.flight(task_id)
        residence = None if real is None else self._real.observe(task_id, self._now_s())
        if real is None or residence is None:
            return run
        laws = self._learner.laws(real.inference.model, np.array([real.row]))
        written = find_written(real, laws, residence=residence, until_s=end_s)
        shape = self._learner.shapes[run.flight.length_kind]
        return replace(run, output_tokens=find_length(run.flight, run.quantile, shape, more_than=written))

    def _end_tasks(self, now_s: float) -> None:
        for node in self._away.take_lost(now_s):
            self._lose_node(node)
        while self._ends and self._ends[0][0] <= now_s:
            end_s, task_id = heappop(self._ends)
            if task_id not in self._runs:
                continue  # it has ended earlier than was planned at first
            if self._runs[task_id].prospect.node in self._away:
                heappush(self._ends, (max(end_s, now_s) + LOOK_S, task_id))
                continue
            run = self._runs[task_id] = self._lengthen(self._runs[task_id], end_s)
            due_s = self._find_end_s(run, end_s)
            if due_s > end_s + STEP_S:
                heappush(self._ends, (due_s, task_id))
                continue
            del self._runs[task_id]
            residence = self._ledger.release(task_id, end_s)
            if residence is not None and task_id in self._prospects:
                self._met[task_id] = self._describe_met(run, residence, end_s)

    def _find_end_s(self, run: RehearsedRun, now_s: float) -> float:
        """Return when a task ends, as far as known by what it has met until now."""
        flight, met = run.flight, self._ledger.observe(run.flight.task_id, now_s)
        if met is None:
            return now_s
        tokens = flight.inference.prompt_tokens
        circumstances = Circumstances(prompt_tokens=tokens, output_tokens=run.output_tokens, residence=met)
        laws = self._learner.laws(flight.inference.model, np.array([flight.row]))
        return flight.placed_s + revise(run.prospect, laws, flight.row, run=circumstances).forecast.times.fixed_s


def _contain(what: str, work: Callable[[], T | None]) -> T | None:
    """Return what work returns; None if it fails: no real task may wait, or not be learned from, because of that."""
    try:
        return work()
    except Exception as error:
        log.error("the rehearsal of %s has failed: %s", what, describe(error), exc_info=error)
        return None


def build_rehearsal(
    build_placer: Callable[..., Placer],
    real: Ledger,
    fleet: Fleet,
    learner: Learner,
    *,
    other: OtherScheduler,
    rng: Random,
    now_s: Callable[[], float],
) -> Rehearsal:
    """Return a rehearsal of the other scheduler with a ledger of its own, empty.

    Args:
        build_placer: returns a placer that forecasts with a ledger, given `loaded` models.
        real: the ledger of the real tasks.
        fleet: the nodes.
        learner: its laws.
        other: whose choices are rehearsed.
        rng: draws the lengths of answers, and breaks ties.
        now_s: monotonic clock.
    """
    ledger, loaded = Ledger(), LoadedModels()
    placer, choose = build_placer(ledger, loaded=loaded), _find_rule(other, fleet, rng)
    return Rehearsal(
        placer,
        ledger,
        loaded,
        real=real,
        fleet=fleet,
        learner=learner,
        choose=choose,
        is_own=other is OtherScheduler.PERLLM,
        rng=rng,
        now_s=now_s,
    )


def _find_rule(other: OtherScheduler, fleet: Fleet, rng: Random) -> Callable[[Placement], int | None] | None:
    """Return how the other scheduler chooses."""
    match other:
        case OtherScheduler.KUBE_SCHEDULER:
            return KubeScheduler(fleet, rng).choose
        case OtherScheduler.PERLLM:
            return lambda placement: placement.favourite
        case OtherScheduler.NONE:
            return None
