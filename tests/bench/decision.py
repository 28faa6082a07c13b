"""How long the operator takes to decide about one task, with everything it knows in memory, by the number of nodes.

A decision is what `Placer` does for a task that has come: its length, the outlook on every node, the policy's choice,
the record, the entry in the ledger. Every node has tasks in flight, one of which ends for each that starts. The clock
moves as if tasks came at 90 % of the fleet's capacity, or as fast as they are decided where that is slower, so that the
ledger is refreshed as often as in operation. Memory is managed as in the operator. Times are those of the processor: a
decision waits for nothing.
"""

import tracemalloc
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from random import Random
from statistics import median
from time import thread_time

from numpy.random import default_rng

from bench.fleets import build_scenario
from bench.tables import Row, percentile
from perllm.api.task import Tier
from perllm.cluster.node import Node
from perllm.collector import collect_rarely
from perllm.heap import keep_freed_memory
from perllm.learning.learner import Learner
from perllm.learning.recent import CAPACITY
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Bandwidth, Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.placer import Placer
from perllm.placement.request import PlacementRequest
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.workload.capacity import capacity_per_s
from perllm_lab.workload.synthetic import generate_arrivals

SIZES = (24, 200, 1200, 5000)
LIMITS_MS = {24: 0.6, 1200: 1.5, 5000: 5.0}
DECISIONS = 1000
WARM_UP = 100
FLIGHTS_PER_NODE = 12
LOAD = 0.9
DEADLINE_S = 30.0
MODEL = "chat"
TRANSMISSION_J_PER_BIT = {Tier.EDGE: 0.3e-6, Tier.CLOUD: 1.0e-6}
POLICIES: dict[str, Callable[[], Policy]] = {"cs-ucb": CsUcb, "cs-ucb-table": CsUcbTable}

Spans = dict[str, dict[int, list[list[float]]]]


def measure_decisions(rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Return times of decisions, of cs-ucb against cs-ucb-table, their growth, and absolute; and their memory."""
    collect_rarely()
    keep_freed_memory()
    spans_ms: Spans = {name: {size: [] for size in SIZES} for name in POLICIES}
    for size in SIZES:
        say(f"decision: {rounds} x {DECISIONS} decisions among {size} nodes")
        for _ in range(rounds):
            for name, policy in POLICIES.items():
                spans_ms[name][size].append(_Desk(build_scenario(size), policy()).work())
    ours = spans_ms["cs-ucb"]
    return [
        *(_ratio_row(size, ours[size], spans_ms["cs-ucb-table"][size]) for size in SIZES),
        *(_growth_row(few, many, ours) for few, many in pairwise(SIZES)),
        *(_time_row(size, ours[size]) for size in SIZES),
        *(_memory_row(size) for size in (SIZES[0], SIZES[-1])),
    ]


@dataclass
class _Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Desk:
    """A placer with a busy fleet."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self._rng = default_rng(0)
        self._arrivals = generate_arrivals(DECISIONS + WARM_UP, self._rng)
        self._gap_s = 1.0 / (LOAD * capacity_per_s(scenario.nodes(), self._arrivals))
        self._clock = _Clock()
        self._learner, self._fleet = Learner(policy), Fleet()
        self._placer = Placer(
            policy,
            self._learner,
            self._fleet,
            Ledger(),
            circuits=Circuits(Random(0)),
            transmission_j_per_bit=TRANSMISSION_J_PER_BIT,
            metrics_age_s=lambda _: 0.0,
            unix_now=self._clock,
            now=self._clock,
        )
        self._flights: deque[str] = deque()
        self._furnish(scenario)
        self._fill()

    def work(self) -> list[float]:
        """Return the milliseconds of every decision."""
        spans_ms: list[float] = []
        for number in range(DECISIONS + WARM_UP):
            request = self._request(f"task-{number}", number)
            begin_s = thread_time()
            self._decide(request)
            took_s = thread_time() - begin_s
            self._placer.release(self._flights.popleft())
            self._clock.now_s += max(self._gap_s, took_s)
            spans_ms.append(took_s * 1e3)
        return spans_ms[WARM_UP:]

    def learn_much(self) -> None:
        """Fill what the learner keeps of every node to the brim."""
        for name in self._fleet.nodes:
            for number in range(CAPACITY):
                self._learner.recent(name).add(f"{number:013d}-{name}", float(number))

    def _decide(self, request: PlacementRequest) -> None:
        placement = self._placer.choose(request)
        node = placement.node
        if node is None:
            raise RuntimeError(f"no node of {len(placement.names)} has room: {placement.choice.reason}")
        self._placer.confirm(self._placer.explain(placement, node))
        self._flights.append(request.task_id)

    def _furnish(self, scenario: Scenario) -> None:
        fleet, learner = self._fleet, self._learner
        for spec in scenario.nodes():
            node = Node(spec.name, spec.name, Tier(spec.tier), spec.gpu.product, spec.slots, frozenset(), True)
            fleet.put(node, learner.register(spec.name, spec.gpu.product), Bandwidth(spec.link.bandwidth_bps, 0.0))
            learner.warm(spec.name, MODEL)
        self._placer.note_bandwidth()

    def _fill(self) -> None:
        """Put tasks in flight, to each node as its slots, begun at any time within the last deadline."""
        names, rows = self._fleet.all_nodes()
        slots = self._fleet.slots(rows)
        counts = (slots * (FLIGHTS_PER_NODE * len(names) / float(slots.sum()))).round().astype(int).tolist()
        arms = self._rng.permutation([arm for arm, count in enumerate(counts) for _ in range(count)]).tolist()
        self._clock.now_s = 0.0
        placement = self._placer.choose(self._request("first", 0))
        for number, arm in enumerate(arms):
            self._clock.now_s = DEADLINE_S / 2 * number / len(arms)
            request = replace(placement.request, task_id=f"before-{number}")
            filled = replace(placement, request=request, decided_s=self._clock.now_s)
            self._placer.confirm(self._placer.explain(filled, filled.names[arm]))
            self._flights.append(request.task_id)

    def _request(self, task_id: str, number: int) -> PlacementRequest:
        arrival, due_s = self._arrivals[number], self._clock.now_s + DEADLINE_S
        return PlacementRequest(
            task_id=task_id,
            model=MODEL,
            prompt_tokens=arrival.prompt_tokens,
            output_tokens=None,
            input_bytes=4096,
            tiers=frozenset(Tier),
            due_s=due_s,
            deadline_s=DEADLINE_S,
        )


def _ratio_row(size: int, ours: list[list[float]], theirs: list[list[float]]) -> Row:
    ratios = [median(one) / median(other) for one, other in zip(ours, theirs, strict=True)]
    tails = [percentile(one, 0.99) / percentile(other, 0.99) for one, other in zip(ours, theirs, strict=True)]
    return Row(f"decision, {size} nodes: cs-ucb / cs-ucb-table, p50", ratios, "x", "", f"p99 {median(tails):.2f} x")


def _growth_row(few: int, many: int, ours: dict[int, list[list[float]]]) -> Row:
    grown = [median(after) / median(before) for before, after in zip(ours[few], ours[many], strict=True)]
    exponent = log(median(grown)) / log(many / few)
    detail = f"nodes {many / few:.1f} x, so about nodes ^ {exponent:.2f}"
    return Row(f"decision, p50 of {many} / of {few} nodes", grown, "x", f"<= {many / few:.1f} x", detail)


def _time_row(size: int, spans_ms: list[list[float]]) -> Row:
    middle = median(median(one) for one in spans_ms)
    limit = LIMITS_MS.get(size)
    expected = "" if limit is None else f"p99 <= {limit:g} ms"
    detail = (
        f"p50 {middle:.2f} ms, longest {max(max(one) for one in spans_ms):.2f} ms; {FLIGHTS_PER_NODE} in flight a node"
    )
    return Row(f"decision, {size} nodes", [percentile(one, 0.99) for one in spans_ms], "ms (p99)", expected, detail)


def _memory_row(size: int) -> Row:
    scenario = build_scenario(size)
    tracemalloc.start()
    try:
        desk = _Desk(scenario, CsUcb())
        without = tracemalloc.get_traced_memory()[0]
        desk.learn_much()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    recent = f"{(used - without) / 1e6:.1f} MB of it the last {CAPACITY} outcomes of each"
    detail = f"{used / size / 1e3:.1f} kB a node, {recent}"
    return Row(f"memory of fleet, laws, ledger: {size} nodes", [used / 1e6], "MB", "", detail)
