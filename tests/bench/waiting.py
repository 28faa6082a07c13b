"""What waiting for cheaper hours saves, next to a linear program with the same knowledge: same tasks, same deadlines.

Notation, for a task i and an hour h
    n(i)      its tokens, to which its energy is proportional: all nodes are of one type
    w(i)      its slot seconds: n(i) times what a token took while nothing waited
    c(h)      what a joule cost in h;  c'(i, h)  what it was expected to cost when i arrived
    x(i, h)   share of i that runs in h

    linear program     minimise sum of n(i) c'(i, h) x(i, h) over the hours in which i could run and be in time,
                       with  sum over h of x(i, h) = 1  and  sum over i of w(i) x(i, h) <= slot seconds of an hour

It knows all tasks before they arrive, and their lengths, and needs no reserve, unlike PerLLM. Both are judged by the
sum of n(i) c(h) over the hours in which the tasks ran.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from bench.tables import Row
from perllm.costs.forecast import HOUR_S, find_pattern
from perllm.costs.outlook import STEP_S, CostOutlook
from perllm.policy.contextual import CsUcb
from perllm.scheduling.pending import PendingTask
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.fleet import FleetPlan, SimulationSettings
from perllm_lab.simulator.placing import LENIENT_MODE, Placing
from perllm_lab.simulator.result import Fate, RunResult
from perllm_lab.simulator.scheduler import NodeReading
from perllm_lab.simulator.simulation import simulate
from perllm_lab.workload.requests import Request
from perllm_lab.workload.scenarios import load_scenario

Floats = NDArray[np.float64]

PAST_H = 7 * 24
ARRIVALS_H = 36
RUN_H = 50
AHEAD_H = 26
NODES = ("rtx4090-0",)
TASKS = 120
SLACK_H = (2.0, 12.0)
KEPT_CHANCE = 0.95
SETTINGS = SimulationSettings(scrape_s=60.0, warmup_share=0.0)
SEEDS = 5
STEPS_PER_H = int(HOUR_S / STEP_S)


@dataclass(frozen=True, slots=True)
class Figures:
    """Grams of CO2, or money, by the hour; the first week is the past.

    Attributes:
        by_hour: the figures, shape (`PAST_H` + `RUN_H` + `AHEAD_H`,).
        is_known: whether all are known, as those of a schedule are; else they are forecast from the past week.
    """

    by_hour: Floats
    is_known: bool

    def expect(self, hour: int) -> Floats:
        """Return what is expected from an hour of the run on; shape (`AHEAD_H`,)."""
        now = PAST_H + hour
        if self.is_known:
            return self.by_hour[now : now + AHEAD_H]
        hours = range(hour - PAST_H, hour + 1)
        past = self.by_hour[now - PAST_H : now + 1].tolist()
        pattern = find_pattern([(at * HOUR_S, figure) for at, figure in zip(hours, past, strict=True)], UTC)
        return pattern.forecast(past[-1], [(hour + ahead) * HOUR_S for ahead in range(AHEAD_H)])[0]


class Patient(Placing):
    """The operator's scheduler, with tasks that may wait for a cheaper hour."""

    def __init__(self, figures: Figures, nodes: Sequence[NodeSpec]) -> None:
        super().__init__("perllm", CsUcb(), LENIENT_MODE, SETTINGS)
        self._figures = figures
        self._nodes = nodes
        self._hour = -1

    def observe(self, readings: Mapping[str, NodeReading], now_s: float) -> None:
        """Update what is known from a scrape, and every hour what joules cost."""
        super().observe(readings, now_s)
        hour = int(now_s // HOUR_S)
        if hour != self._hour and hour < RUN_H:
            self._hour = hour
            expected = self._figures.expect(hour)
            series = tuple(np.repeat(expected / expected.mean(), STEPS_PER_H).tolist())
            self._scheduler.put_costs(CostOutlook(hour * HOUR_S, (series,), {node.name: 0 for node in self._nodes}))

    def submit(self, number: int, request: Request, now_s: float) -> None:
        """Queue a task."""
        self._now_s = now_s
        asked = self._note_arrival(str(number), request)
        self._scheduler.submit(PendingTask(str(number), 1, 1, asked, kept_chance=KEPT_CHANCE))


@dataclass(frozen=True, slots=True)
class WaitingOutcome:
    """What one seed showed.

    Attributes:
        saved: share of the cost that waiting saved.
        bound: the same of the linear program.
        in_time: share of the tasks that were in time, without waiting and with it.
        measured: share of the cost saved if the true joules count, which full batches lower as well.
    """

    saved: float
    bound: float
    in_time: tuple[float, float]
    measured: float

    def __str__(self) -> str:
        before, after = self.in_time
        return (
            f"{self.saved:.1%} of the cost saved, {self.bound:.1%} by the linear program, {self.measured:.1%} by true "
            f"joules; {before:.1%} in time without waiting, {after:.1%} with it"
        )


def measure_waiting(say: Callable[[str], None], series: Path | None = None) -> list[Row]:
    """Return the share of the savings of a linear program, for figures that are known and for forecast ones."""
    rows = []
    for is_known, what in ((True, "known"), (False, "forecast")):
        outcomes = []
        for seed in range(SEEDS):
            outcomes.append(run_seed(seed, is_known, series))
            say(f"waiting, figures {what}, seed {seed}: {outcomes[-1]}")
        shares = [one.saved / one.bound for one in outcomes]
        before, after = (fmean(one.in_time[place] for one in outcomes) for place in (0, 1))
        saved, bound = fmean(one.saved for one in outcomes), fmean(one.bound for one in outcomes)
        detail = (
            f"mean {fmean(shares):.2f}, worst {min(shares):.2f}; saved {saved:.1%}, it {bound:.1%}; in time "
            f"{before:.2%} without waiting, {after:.2%} with it"
        )
        rows.append(Row(f"cost saved by waiting, figures {what}, to a linear program", shares, "x", ">= 0.8 x", detail))
    return rows


def run_seed(seed: int, is_known: bool, series: Path | None = None) -> WaitingOutcome:
    """Run the same tasks without and with waiting, and solve the linear program."""
    rng = np.random.default_rng([seed, 1])
    figures = Figures(draw_figures(rng) if series is None else cut_figures(series, rng), is_known)
    nodes = tuple(node for node in load_scenario("modern").nodes() if node.name in NODES)
    requests, plan = draw_tasks(rng), FleetPlan("modern", nodes, (), 0.0, seed)
    at_once = Placing("perllm", CsUcb(), LENIENT_MODE, SETTINGS)
    before, after = (simulate(plan, requests, one, SETTINGS) for one in (at_once, Patient(figures, nodes)))
    tokens = before.tasks.output_tokens
    slot_s = tokens * float((before.tasks.finished_s - before.tasks.bound_s).sum() / tokens.sum())
    base, ours = (sum_cost(run, figures, tokens) for run in (before, after))
    true_base, true_ours = (sum_cost(run, figures, run.tasks.energy_j) for run in (before, after))
    bound = solve(requests, figures, slot_s, HOUR_S * sum(node.slots for node in nodes))
    in_time = [float((run.tasks.fate == Fate.IN_TIME).mean()) for run in (before, after)]
    return WaitingOutcome(1 - ours / base, 1 - bound / base, (in_time[0], in_time[1]), 1 - true_ours / true_base)


def draw_figures(rng: np.random.Generator) -> Floats:
    """Return figures like those of grids with much sun: low at noon, high in the evening, lower on weekends, noisy."""
    hours = np.arange(PAST_H + RUN_H + AHEAD_H) + rng.integers(PAST_H)
    day = 60.0 * np.cos(2 * np.pi * (hours - 19) / 24) + 35.0 * np.cos(4 * np.pi * (hours - 8) / 24)
    weekend = -30.0 * ((hours // 24) % 7 >= 5)
    noise = np.zeros(len(hours))
    for hour in range(1, len(hours)):
        noise[hour] = 0.9 * noise[hour - 1] + rng.normal(0.0, 10.0)
    return np.maximum(250.0 + day + weekend + noise, 10.0)


def cut_figures(file: Path, rng: np.random.Generator) -> Floats:
    """Return a random stretch of a CSV file with a line of headings, then a figure for every half hour in column 2."""
    halves = np.genfromtxt(file, dtype=np.float64, delimiter=",", skip_header=1, usecols=(1,))
    by_hour: Floats = halves[: len(halves) // 2 * 2].reshape(-1, 2).mean(axis=1)
    length = PAST_H + RUN_H + AHEAD_H
    first = rng.integers(len(by_hour) - length)
    return by_hour[first : first + length]


def draw_tasks(rng: np.random.Generator) -> list[Request]:
    """Return batches of prompts with hours of slack, in the order of their arrival."""
    arrivals_s = np.sort(rng.uniform(0.0, ARRIVALS_H * HOUR_S, TASKS))
    tokens = rng.lognormal(9.5, 0.6, TASKS)
    hints = tokens * np.exp(rng.normal(0.0, 0.3, TASKS))
    deadlines_s = rng.uniform(*SLACK_H, TASKS) * HOUR_S
    return [
        Request(f"t{n}", "chat", float(at_s), 4000, int(length), 100_000, float(deadline_s), hint_tokens=int(hint))
        for n, (at_s, length, hint, deadline_s) in enumerate(zip(arrivals_s, tokens, hints, deadlines_s, strict=True))
    ]


def sum_cost(run: RunResult, figures: Figures, weights: Floats) -> float:
    """Return the sum of weights times the figure in the middle of each run."""
    middle_s = (run.tasks.bound_s + run.tasks.finished_s) / 2.0
    return float((weights * figures.by_hour[PAST_H + (middle_s // HOUR_S).astype(np.int64)]).sum())


def solve(requests: Sequence[Request], figures: Figures, slot_s: Floats, room_s: float) -> float:
    """Return the sum of tokens times figures if tasks run as the linear program says."""
    entries = [
        entry for task in range(len(requests)) for entry in list_hours(requests[task], float(slot_s[task]), task)
    ]
    tasks, hours, firsts = np.array(entries, dtype=np.int64).T
    expected = np.array([figures.expect(hour) for hour in range(RUN_H)])
    tokens = np.array([request.output_tokens for request in requests], dtype=np.float64)[tasks]
    columns = np.arange(len(entries))
    once = csr_array((np.ones(len(entries)), (tasks, columns)), shape=(len(requests), len(entries)))
    load = csr_array((slot_s[tasks], (hours, columns)), shape=(RUN_H, len(entries)))
    found = linprog(
        tokens * expected[firsts, hours - firsts],
        A_ub=load,
        b_ub=np.full(RUN_H, room_s),
        A_eq=once,
        b_eq=np.ones(len(requests)),
        method="highs",
    )
    if found.x is None:
        raise RuntimeError(f"the linear program has no solution: {found.message}")
    return float(found.x @ (tokens * figures.by_hour[PAST_H + hours]))


def list_hours(request: Request, slot_s: float, task: int) -> list[tuple[int, int, int]]:
    """Return the hours in which a task could run and be in time, each with its number and the hour of its arrival."""
    first = int(request.at_s // HOUR_S)
    last = min(int((request.at_s + request.deadline_s - slot_s) // HOUR_S), RUN_H - 1)
    return [(task, hour, first) for hour in range(first, max(last, first) + 1)]
