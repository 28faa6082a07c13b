"""One run: requests arrive, a scheduler sends them to nodes, and time jumps from event to event.

As in Kubernetes, a task occupies a slot of its node from binding to its end; a task that is sent to a full node waits
in the queue of that node. The scheduler is notified of everything that happens at one moment, in the order of
`Trigger`, before it decides.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf
from time import perf_counter, thread_time

import numpy as np

from perllm_lab.hardware.events import ChangeKind
from perllm_lab.simulator.agenda import Agenda, Trigger
from perllm_lab.simulator.fleet import FleetPlan, SimulationError, SimulationSettings
from perllm_lab.simulator.floor import Floor
from perllm_lab.simulator.result import Floats, RunResult
from perllm_lab.simulator.scheduler import Strategy
from perllm_lab.workload.arrivals import Arrival
from perllm_lab.workload.requests import Request

GRACE_DEADLINES = 2.0


def simulate(
    fleet: FleetPlan, requests: Sequence[Request], scheduler: Strategy, settings: SimulationSettings | None = None
) -> RunResult:
    """Run requests, ordered by arrival, until all have ended, at most twice the longest deadline after the last one.

    Raises:
        SimulationError: the scheduler asked for something impossible.
        ValueError: there are no requests, or they are not in order.
    """
    if not requests:
        raise ValueError("a simulation needs at least one request")
    if any(after.at_s < before.at_s for before, after in pairwise(requests)):
        raise ValueError("requests must be ordered by arrival")
    return _Simulation(fleet, requests, scheduler, settings or SimulationSettings()).run()


def judged_window_s(requests: Sequence[Request | Arrival], warmup_share: float) -> tuple[float, float]:
    """Return begin and end of the judged window: from the first arrival after the warm-up to the last."""
    return requests[int(warmup_share * len(requests))].at_s, requests[-1].at_s


class _Simulation:
    def __init__(
        self, fleet: FleetPlan, requests: Sequence[Request], scheduler: Strategy, settings: SimulationSettings
    ) -> None:
        self._fleet = fleet
        self._requests = requests
        self._scheduler = scheduler
        self._settings = settings
        self._agenda = Agenda()
        self._floor = Floor(fleet, requests, scheduler, settings, self._agenda)
        self._meters: list[Floats] = []
        self._decision_s: list[float] = []
        self._wakeup_s = inf

    def run(self) -> RunResult:
        started = perf_counter()
        agenda, floor, handlers = self._agenda, self._floor, self._handlers()
        window_s = judged_window_s(self._requests, self._settings.warmup_share)
        end_s = window_s[1] + GRACE_DEADLINES * max(request.deadline_s for request in self._requests)
        self._plan_run(window_s)
        floor.open()
        while floor.unended and agenda.next_s() <= end_s:
            agenda.now_s = agenda.next_s()
            while entry := agenda.pop():
                handlers[entry[0]](entry[1])
            if floor.has_news:
                self._decide()
        if floor.unended:
            agenda.now_s = end_s
        floor.close()
        return self._result(window_s, perf_counter() - started)

    def _handlers(self) -> tuple[Callable[[int], None], ...]:
        """Return the handlers of the agenda's entries, by trigger."""
        floor = self._floor
        return (
            floor.advance,
            self._on_change,
            floor.expire,
            self._on_scrape,
            self._on_window,
            self._on_arrival,
            self._on_wakeup,
        )

    def _plan_run(self, window_s: tuple[float, float]) -> None:
        agenda = self._agenda
        for place, change in enumerate(self._fleet.changes):
            agenda.plan(change.at_s, Trigger.CHANGE, place)
        for at_s in window_s:
            agenda.plan(at_s, Trigger.WINDOW)
        agenda.plan(0.0, Trigger.SCRAPE)
        agenda.plan(self._requests[0].at_s, Trigger.ARRIVAL)

    def _on_change(self, position: int) -> None:
        change, now_s = self._fleet.changes[position], self._agenda.now_s
        station = self._floor.station(change.node)
        match change.kind:
            case ChangeKind.JOIN | ChangeKind.RETURN:
                self._floor.boot(station)
            case ChangeKind.LOSS:
                self._floor.lose(station)
            case ChangeKind.BANDWIDTH:
                station.node.set_bandwidth_factor(change.factor, now_s)
            case ChangeKind.SPEED:
                station.node.set_speed_factor(change.factor, now_s)
        self._floor.plan(station)

    def _on_scrape(self, _: int) -> None:
        self._agenda.plan(self._agenda.now_s + self._settings.scrape_s, Trigger.SCRAPE)
        self._floor.read()

    def _on_window(self, _: int) -> None:
        self._meters.append(self._floor.meter())

    def _on_arrival(self, number: int) -> None:
        agenda, rules = self._agenda, self._scheduler.queue_rules
        if number + 1 < len(self._requests):
            agenda.plan(self._requests[number + 1].at_s, Trigger.ARRIVAL, number + 1)
        if rules.drops or rules.ends_at_deadline:
            agenda.plan(self._floor.ledger.due_s[number], Trigger.DEADLINE, number)
        self._floor.submit(number)

    def _on_wakeup(self, _: int) -> None:
        if self._wakeup_s == self._agenda.now_s:
            self._floor.has_news = True

    def _decide(self) -> None:
        scheduler, now_s = self._scheduler, self._agenda.now_s
        while True:
            started = thread_time()
            actions = scheduler.decide(now_s)
            took_s = thread_time() - started
            if actions:
                self._decision_s.append(took_s / len(actions))
            for action in actions:
                self._floor.act(action)
            wakeup_s = scheduler.next_decision_s()
            if wakeup_s > now_s:
                break
            if not actions:
                raise SimulationError(
                    f"scheduler {scheduler.name} wants to decide at {wakeup_s} s and does not, at {now_s} s"
                )
        if wakeup_s != self._wakeup_s and wakeup_s < inf:
            self._agenda.plan(wakeup_s, Trigger.WAKEUP)
        self._wakeup_s = wakeup_s
        self._floor.has_news = False

    def _result(self, window_s: tuple[float, float], wall_s: float) -> RunResult:
        specs, (begin_j, end_j) = self._fleet.nodes, self._meters
        return RunResult(
            scenario=self._fleet.scenario,
            policy=self._scheduler.name,
            load=self._fleet.load,
            seed=self._fleet.seed,
            nodes=tuple(spec.name for spec in specs),
            tiers=tuple(spec.tier for spec in specs),
            gpu_types=tuple(spec.gpu.product for spec in specs),
            tasks=self._floor.ledger.build_table(),
            window_s=window_s,
            node_energy_j=(end_j - begin_j)[:, 0],
            node_idle_j=(end_j - begin_j)[:, 1],
            decision_s=np.array(self._decision_s, dtype=np.float64),
            wall_s=wall_s,
        )
