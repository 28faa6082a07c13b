"""The tasks and nodes of a run: where each task is, which may start, and what the scheduler is notified of."""

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from math import inf, isclose, nan

import numpy as np
from numpy.random import SeedSequence, default_rng

from perllm.api.task_status import RunsAs
from perllm_lab.hardware.job import Finished, Job
from perllm_lab.simulator.agenda import Agenda, Trigger
from perllm_lab.simulator.fleet import FleetPlan, SimulationError, SimulationSettings
from perllm_lab.simulator.ledger import TaskRecords
from perllm_lab.simulator.result import Fate, Floats
from perllm_lab.simulator.scheduler import Completion, RejectTask, SendTask, Strategy
from perllm_lab.simulator.station import Station
from perllm_lab.workload.requests import Request

CONSERVED = 1e-6


class State(IntEnum):
    """Where a task is: not arrived, with the scheduler, in the queue of a node, on a node, ended."""

    COMING = 0
    PENDING = 1
    QUEUED = 2
    RUNNING = 3
    ENDED = 4


class Floor:
    """Moves tasks between the scheduler and the nodes; the agenda says when.

    Attributes:
        ledger: what happened to every task.
        unended: how many tasks have not ended.
        has_news: whether the scheduler was notified of anything since this was last set to false.
    """

    def __init__(
        self,
        fleet: FleetPlan,
        requests: Sequence[Request],
        scheduler: Strategy,
        settings: SimulationSettings,
        agenda: Agenda,
    ) -> None:
        self.ledger = TaskRecords(requests)
        self.unended = len(requests)
        self.has_news = False
        self._requests = requests
        self._scheduler = scheduler
        self._queue_rules = scheduler.queue_rules
        self._settings = settings
        self._agenda = agenda
        self._stations = [
            Station(spec, position, self._queue_rules.order, fleet.derive("link", spec.name))
            for position, spec in enumerate(fleet.nodes)
        ]
        self._by_name = {station.spec.name: station for station in self._stations}
        self._state = [State.COMING] * len(requests)
        is_request = settings.runs_as is RunsAs.REQUEST
        self._jobs = [
            Job(
                str(number),
                request.prompt_tokens,
                request.output_tokens,
                request.input_bytes,
                is_request,
                model=request.model,
            )
            for number, request in enumerate(requests)
        ]
        self._errors = _draw_errors(fleet.derive("attribution"), settings.energy_error, len(requests))
        self._unlearned = deque[Completion]()

    def open(self) -> None:
        """Boot the nodes that are present from the start."""
        for station in self._stations:
            if station.spec.joins_at == 0.0:
                self.boot(station)

    def station(self, name: str) -> Station:
        """The node of that name."""
        return self._by_name[name]

    def submit(self, number: int) -> None:
        """Hand a task to the scheduler, unless its deadline has passed and such tasks are dropped."""
        if self._queue_rules.drops and self.ledger.due_s[number] <= self._agenda.now_s:
            self._note_end(number, Fate.DROPPED)
            return
        self._state[number] = State.PENDING
        self._scheduler.submit(number, self._requests[number], self._agenda.now_s)
        self.has_news = True

    def act(self, action: SendTask | RejectTask) -> None:
        """Carry out an action of the scheduler.

        Raises:
            SimulationError: the action is impossible.
        """
        number = action.number
        if self._state[number] is not State.PENDING:
            raise self._impossible(f"acts on task {number}, which is {self._state[number].name.lower()}")
        if isinstance(action, RejectTask):
            self._note_end(number, Fate.REFUSED)
            return
        station = self._by_name.get(action.node)
        if station is None or not station.node.is_powered:
            raise self._impossible(f"sends task {number} to node {action.node!r}, which is not there")
        self.ledger.note_start(number, station.position, self._agenda.now_s, action.forecast, action.explored)
        self._state[number] = State.QUEUED
        station.push(number, self.ledger.due_s[number])
        self.plan(station)

    def advance(self, position: int) -> None:
        """Advance a node to its planned event, unless that has been replanned since."""
        station = self._stations[position]
        if station.due_s != self._agenda.now_s:
            return
        station.due_s = inf
        for run in station.node.advance(self._agenda.now_s):
            self._complete(station, run)
        self.plan(station)

    def expire(self, number: int) -> None:
        """Drop or end a task at its deadline, where that is the rule."""
        state = self._state[number]
        if state is State.RUNNING and self._queue_rules.ends_at_deadline:
            station = self._stations[self.ledger.node[number]]
            self._remove(station, number)
            self._end(number, Fate.ENDED, self._agenda.now_s)
            self.plan(station)
        elif state is State.PENDING and self._queue_rules.drops:
            self._end(number, Fate.DROPPED)
        elif state is State.QUEUED and self._queue_rules.drops:
            self._stations[self.ledger.node[number]].withdraw(number)
            self._end(number, Fate.DROPPED)

    def read(self) -> None:
        """Scrape all nodes, then report the tasks completed since the last scrape, with their energy."""
        now_s = self._agenda.now_s
        there = [station for station in self._stations if station.node.is_powered]
        self._scheduler.observe({station.spec.name: station.read(now_s) for station in there}, now_s)
        # In the order of their ends.
        while self._unlearned and self._unlearned[0].finished_s + self._settings.settling_s <= now_s:
            self._scheduler.learn(self._unlearned.popleft(), now_s)
        self.has_news = True

    def meter(self) -> Floats:
        """Return the joules of every node so far, shape (n, 2): in total, and while idle."""
        return np.array([station.meter(self._agenda.now_s) for station in self._stations])

    def boot(self, station: Station) -> None:
        """Boot a node, unless it is up."""
        if station.node.is_powered:
            return
        station.boot(self._agenda.now_s)
        self._scheduler.join(station.spec, self._agenda.now_s)
        self.has_news = True

    def lose(self, station: Station) -> None:
        """Remove a node; its tasks are released and submitted again, in the order of their numbers."""
        if not station.node.is_powered:
            return
        lost = sorted([*station.running, *station.clear()])
        for run in station.node.power_off(self._agenda.now_s):
            self._note_run(station, int(run.job.key), run)
        for number in lost:
            self._scheduler.release(number, self._agenda.now_s)
        self._scheduler.leave(station.spec.name, self._agenda.now_s)
        for number in lost:
            self.submit(number)
        self.has_news = True

    def plan(self, station: Station) -> None:
        """Fill free slots from the queue and plan the node's next event."""
        while station.has_room and (number := station.pop()) is not None:
            self._bind(station, number)
        due_s = station.node.next_event_s()
        if due_s is None:
            station.due_s = inf
        elif due_s != station.due_s:
            station.due_s = due_s
            self._agenda.plan(due_s, Trigger.NODE, station.position)

    def close(self) -> None:
        """Remove what still runs when the run stops, and check that neither a task nor a joule was lost."""
        for station in self._stations:
            for number in sorted(station.running):
                self._remove(station, number)
        for number, state in enumerate(self._state):
            if state is not State.ENDED:
                self._note_end(number, Fate.UNFINISHED)
        drawn_j = sum(
            total_j - idle_j for total_j, idle_j in (each.meter(self._agenda.now_s) for each in self._stations)
        )
        used_j = sum(self.ledger.energy_j)
        if not isclose(drawn_j, used_j, rel_tol=CONSERVED, abs_tol=CONSERVED):
            raise AssertionError(f"nodes drew {drawn_j} J for tasks, tasks used {used_j} J")
        if any(station.node.jobs for station in self._stations):
            raise AssertionError("a node still holds a task")

    def _bind(self, station: Station, number: int) -> None:
        """Give a task to a node that has room; where deadlines end tasks, a late one is ended instead."""
        now_s = self._agenda.now_s
        if self._queue_rules.ends_at_deadline and self.ledger.due_s[number] <= now_s:
            self._end(number, Fate.ENDED, now_s)
            return
        self._state[number] = State.RUNNING
        station.running.add(number)
        station.node.admit(self._jobs[number], now_s)
        self.ledger.note_bound(number, now_s)
        self._scheduler.bind(number, now_s)
        self.has_news = True

    def _complete(self, station: Station, run: Finished) -> None:
        number, now_s = int(run.job.key), self._agenda.now_s
        self._note_run(station, number, run)
        self._end(number, Fate.IN_TIME if now_s <= self.ledger.due_s[number] else Fate.LATE, now_s, run)
        completion = Completion(
            number=number,
            node=station.spec.name,
            bound_s=run.admitted_s,
            transfer_s=run.transfer_s,
            finished_s=now_s,
            output_tokens=run.job.output_tokens,
            energy_j=run.energy_j * self._errors[number],
        )
        self._unlearned.append(completion)

    def _remove(self, station: Station, number: int) -> None:
        run = station.node.remove(self._jobs[number].key, self._agenda.now_s)
        if run is None:
            raise AssertionError(f"task {number} is not on {station.spec.name}")
        self._note_run(station, number, run)

    def _note_run(self, station: Station, number: int, run: Finished) -> None:
        station.running.remove(number)
        self.ledger.note_run(number, run, self._settings.j_per_bit(station.spec.tier))

    def _end(self, number: int, fate: Fate, finished_s: float = nan, run: Finished | None = None) -> None:
        self._note_end(number, fate, finished_s)
        self._scheduler.release(number, self._agenda.now_s, None if run is None else run.job.output_tokens)
        self.has_news = True

    def _note_end(self, number: int, fate: Fate, finished_s: float = nan) -> None:
        self._state[number] = State.ENDED
        self.unended -= 1
        self.ledger.note_end(number, fate, finished_s)

    def _impossible(self, action: str) -> SimulationError:
        return SimulationError(f"scheduler {self._scheduler.name} {action}, at {self._agenda.now_s} s")


def _draw_errors(seed: SeedSequence, log_error: float, count: int) -> list[float]:
    """Draw the factors of the attributed energies; by task, so that they do not depend on the scheduler."""
    normal = default_rng(seed).standard_normal(count)
    errors: list[float] = np.exp(log_error * normal - log_error**2 / 2.0).tolist()
    return errors
