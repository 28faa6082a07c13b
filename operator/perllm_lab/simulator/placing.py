"""The operator's own placement in a simulation: its placer, learner, ledger and policies, told what the operator sees.

The same adapter deploys the baselines. Plain: first come, first served, a task is sent at once and waits at its node.
With `+x`: earliest deadline first, dropped and ended at the deadline, and refused where it would cost more deadlines
than it meets, all as for our own policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.learning.learner import Learner
from perllm.placement.circuits import Circuits
from perllm.placement.decision import Decision
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun, judge_ended, judge_run
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placement, Placer
from perllm.placement.request import PlacementRequest
from perllm.policy.problem import Policy, Verdict
from perllm.scheduling.lines import WaitingLines
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.clairvoyant import TrueLearner
from perllm_lab.simulator.refusal import Refusal
from perllm_lab.simulator.scheduler import Completion, Forecast, NodeReading, Order, QueueRules, Refuse, Start
from perllm_lab.workload.requests import Request

ALL_TIERS = frozenset(Tier)
ANY = "any node"

PLAIN = QueueRules()
FULL = QueueRules(Order.DEADLINE, drops=True, ends_at_deadline=True)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a policy's choices are carried out.

    Attributes:
        queue_rules: the simulator's part.
        by_deadline: whether waiting tasks are served earliest deadline first.
        admits: whether a task is refused when it is not worth starting.
        floor: chance net of harm below which it is not; None leaves that to the policy.
    """

    queue_rules: QueueRules = FULL
    by_deadline: bool = True
    admits: bool = True
    floor: float | None = None


class Placing:
    """Lets a policy of the operator decide in a simulation."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        rules: Rules,
        *,
        transmission_j_per_bit: Mapping[Tier, float],
        learner: Learner | None = None,
    ) -> None:
        self.name = name
        self.queue_rules = rules.queue_rules
        self._rules = rules
        self._learner = learner or Learner(policy)
        self._fleet = Fleet()
        self._ledger = Ledger()
        self._now_s = 0.0
        self._placer = Placer(
            policy,
            self._learner,
            self._fleet,
            self._ledger,
            circuits=Circuits(Random(0)),
            transmission_j_per_bit=dict(transmission_j_per_bit),
            metrics_age_s=lambda _: None,
            unix_now=lambda: self._now_s,
            now=lambda: self._now_s,
        )
        self._refusal = Refusal()
        self._requests: dict[int, PlacementRequest] = {}
        self._truths: dict[int, Request] = {}
        self._lines: WaitingLines[int] = WaitingLines()
        self._decisions: dict[int, Decision] = {}
        self._residences: dict[int, Residence] = {}
        self._bound_s: dict[int, float] = {}

    def join(self, node: NodeSpec, now_s: float) -> None:
        """Take a node into the fleet."""
        row = self._learner.register(node.name, node.gpu.product)
        self._learner.cool(node.name)
        if isinstance(self._learner, TrueLearner):
            self._learner.seed_node(node)
        self._fleet.put(
            Node(
                node.name,
                node.name,
                Tier(node.tier),
                node.gpu.product,
                float(node.slots),
                frozenset(),
                True,
                float(node.gpus),
            ),
            row,
            Bandwidth(node.link.bandwidth_bps, 0.0),
        )
        if node.resident:
            self._learner.warm(node.name, node.model)
        self._placer.note_bandwidth()
        self._lines.call(row)

    def leave(self, node: str, now_s: float) -> None:
        """Take a node out."""
        self._fleet.remove(node)
        self._learner.cool(node)

    def observe(self, readings: Mapping[str, NodeReading], now_s: float) -> None:
        """Take in a scrape."""
        for name, reading in readings.items():
            if name in self._fleet.nodes:
                self._fleet.put_bandwidth(name, Bandwidth(reading.bandwidth_bps, reading.received_bps))
                if isinstance(self._learner, TrueLearner):
                    self._learner.observe_speed(name, reading.speed)
        self._placer.note_bandwidth()

    def submit(self, number: int, request: Request, now_s: float) -> None:
        """Queue a task."""
        due_s = request.at_s + request.deadline_s
        self._truths[number] = request
        knows = isinstance(self._learner, TrueLearner)
        hint_tokens = request.output_tokens if knows else request.hint_tokens
        asked = self._requests[number] = PlacementRequest(
            task_id=str(number),
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            output_tokens=hint_tokens,
            input_bytes=request.input_bytes,
            tiers=ALL_TIERS,
            due_s=due_s,
            deadline_s=request.deadline_s,
        )
        self._placer.note_arrival(asked)
        self._lines.add(number, (due_s if self._rules.by_deadline else float(number),))

    def decide(self, now_s: float) -> Sequence[Start | Refuse]:
        """Serve the tasks that are new, those whose awaited node has room again, and now and then some of the rest."""
        self._now_s = now_s
        actions: list[Start | Refuse] = []
        for number in self._lines.due(now_s):
            action = self._decide_one(number)
            if action is not None:
                self._lines.remove(number)
                actions.append(action)
        return actions

    def next_decision_s(self) -> float:
        """Look again soon while tasks wait."""
        return self._lines.next_s(self._now_s)

    def bind(self, number: int, now_s: float) -> None:
        """Note when a task began, for those that were sent to a full node; in flight it is from the decision on."""
        self._bound_s[number] = now_s

    def release(self, number: int, now_s: float) -> None:
        """Forget a task in flight, and learn what its end tells."""
        self._now_s = now_s
        self._lines.remove(number)
        self._ledger.stop_waiting(str(number))
        residence = self._ledger.release(str(number), now_s)
        decision = self._decisions.get(number)
        if residence is None or decision is None:
            return
        self._lines.call(self._fleet.row(decision.node))
        if self.queue_rules.ends_at_deadline and now_s >= self._requests[number].due_s - 1e-6:
            del self._decisions[number]
            began = replace(decision, decided_s=self._bound_s.pop(number, now_s))
            self._learner.learn_ended(judge_ended(began, now_s, residence))
        else:
            self._residences[number] = residence

    def learn(self, completion: Completion, now_s: float) -> None:
        """Learn from a complete task, as the operator does once its energy is measured."""
        decision, residence = (
            self._decisions.pop(completion.number, None),
            self._residences.pop(completion.number, None),
        )
        self._bound_s.pop(completion.number, None)
        if decision is None or residence is None or completion.node not in self._fleet.nodes:
            return
        request = self._requests[completion.number]
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
        self._learner.learn(judge_run(decision, run))

    def _await(self, number: int, placement: Placement) -> None:
        arm = placement.choice.awaited
        if arm is None:
            self._lines.wait(number, ANY)
            return
        row = int(placement.rows[arm])
        self._ledger.wait(str(number), row, float(placement.outlook.times.work_s[arm]))
        self._lines.wait(number, row)

    def _decide_one(self, number: int) -> Start | Refuse | None:
        request = self._requests[number]
        self._ledger.stop_waiting(request.task_id)
        placement = self._placer.choose(request)
        choice, rules = placement.choice, self._rules
        verdict = self._refusal.judge(placement) if rules.admits else Verdict.START
        if verdict is Verdict.REJECT:
            return Refuse(number)
        if choice.arm is None or verdict is Verdict.WAIT:
            self._await(number, placement)
            return None
        arm, arms = choice.arm, placement.arms
        if rules.admits and rules.floor is not None and float(arms.hit_chance[arm] - arms.harm[arm]) <= rules.floor:
            return Refuse(number)
        decision = self._placer.explain(placement, placement.names[arm])
        self._placer.confirm(decision)
        self._decisions[number] = decision
        return Start(
            number, decision.node, self._forecast(decision, placement, arm, number), decision.assessment.explored
        )

    def _forecast(self, decision: Decision, placement: Placement, arm: int, number: int) -> Forecast:
        outlook, tokens = placement.outlook, float(self._truths[number].output_tokens)
        given_s = decision.forecast.latency_given_s(tokens)
        return Forecast(
            latency_s=decision.forecast.times.latency_s,
            latency_low_s=decision.forecast.latency_low_s,
            latency_high_s=decision.forecast.latency_high_s,
            energy_j=decision.forecast.energy.energy_j,
            given_latency_s=given_s,
            given_low_s=given_s * float(outlook.low[arm]),
            given_high_s=given_s * float(outlook.high[arm]),
            given_energy_j=decision.forecast.energy_given_j(tokens),
            hit_chance=decision.forecast.hit_chance,
        )
