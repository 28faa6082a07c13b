"""What PerLLM would have forecast for the tasks of records, by its own code, learning from each as it ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.gpu_laws.engine import ServedTask
from perllm.api.task_status import RunsAs
from perllm.energy.settlement import SETTLING_S
from perllm.learning.features import energy_features, latency_features
from perllm.learning.learner import Learner
from perllm.learning.outcome import Outcome
from perllm.policy.problem import Feedback, Policy
from perllm.settings.policy import PolicySettings
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.placing import LENIENT_MODE, Placing
from perllm_lab.simulator.scheduler import Completion, Forecast, SendTask
from perllm_lab.workload.requests import Request

MODEL, NODE = "chat", "gpu"
DEADLINE_S = 300.0
SLOTS = 1000
"""So many that no task waits for the operator: those of a record were all sent as they arrived."""

LOCAL = LinkType(bandwidth_bps=1e12, rtt_s=0.0)


@dataclass(frozen=True, slots=True)
class Served:
    """A task of a record with the energy that was attributed to it, and when that was known."""

    task: ServedTask
    energy_j: float
    known_s: float


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What was forecast for a task, and what the laws made of it afterwards.

    Attributes:
        served: The task.
        forecast: When it was sent.
        sent_s: When that was.
        law_s: Seconds by the laws as learned until it was known, from what it met on the node.
        law_j: Joules likewise.
    """

    served: Served
    forecast: Forecast
    sent_s: float
    law_s: float
    law_j: float

    @property
    def latency_s(self) -> float:
        """What it took in truth from then on."""
        return self.served.task.ended_s - self.sent_s


class RecordingLearner(Learner):
    """Notes what its laws say of each outcome before it learns from it."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.fits: dict[str, tuple[float, float]] = {}

    def learn(self, outcome: Outcome, own: Feedback | None = None) -> float | None:
        """Learn from an outcome."""
        run, row = outcome.run, self.register(outcome.run.node, "")
        laws = self.laws(run.model, np.array([row]))
        met = max(run.occupancy, 1.0)
        written = outcome.output_tokens
        times = latency_features(run.prompt_tokens, run.others_tokens, written, met, pace=run.pace, is_served=True)
        joules = energy_features(run.prompt_tokens, outcome.output_tokens, met)
        coefficients = laws.latency.coefficients[row], laws.energy.coefficients[row]
        self.fits[run.task_id] = float(times @ coefficients[0]), float(joules @ coefficients[1])
        return super().learn(outcome, own)


def settle(tasks: Sequence[ServedTask], task_j: Mapping[int, float], every_s: float) -> list[Served]:
    """Return the tasks whose energy is known, each with when it was at the latest: a scrape after it had settled."""
    pause_s = SETTLING_S + every_s
    return [Served(task, task_j[task.number], task.ended_s + pause_s) for task in tasks if task.number in task_j]


def foresee(served: Sequence[Served], gpu: GpuType) -> list[Foreseen]:
    """Return what PerLLM would have forecast for tasks that all ran on one GPU, in the order of their arrivals.

    The few that it would have sent only after they had ended in truth are left out.
    """
    policy = PolicySettings().build()
    learner = RecordingLearner(policy)
    placing = Placing("cs-ucb", policy, LENIENT_MODE, SimulationSettings(runs_as=RunsAs.REQUEST), learner=learner)
    resident = NodeSpec(NODE, "edge", MODEL, replace(gpu, slots=SLOTS), LOCAL, resident=True)
    placing.join(resident, served[0].task.arrived_s)
    sent: dict[int, tuple[Forecast, float]] = {}
    for now_s, event, number in _list_events(served):
        while (due_s := placing.next_decision_s()) < now_s:
            _decide(placing, due_s, sent)
        one = served[number]
        if event == "arrives":
            placing.submit(number, _ask(number, one.task), now_s)
        elif event == "ends":
            placing.release(number, now_s)
        else:
            placing.learn(_complete(number, one), now_s)
        _decide(placing, now_s, sent)
    known = [number for number in range(len(served)) if str(number) in learner.fits]
    return [Foreseen(served[number], *sent[number], *learner.fits[str(number)]) for number in known]


def _list_events(served: Sequence[Served]) -> Iterator[tuple[float, str, int]]:
    events = [
        event
        for number, one in enumerate(served)
        for event in (
            (one.task.arrived_s, "arrives", number),
            (one.task.ended_s, "ends", number),
            (one.known_s, "is known", number),
        )
    ]
    return iter(sorted(events))


def _decide(placing: Placing, now_s: float, sent: dict[int, tuple[Forecast, float]]) -> None:
    for action in placing.decide(now_s):
        if isinstance(action, SendTask):
            sent[action.number] = action.forecast, now_s
            placing.bind(action.number, now_s)


def _ask(number: int, task: ServedTask) -> Request:
    return Request(
        name=str(number),
        model=MODEL,
        at_s=task.arrived_s,
        prompt_tokens=task.prompt_tokens,
        output_tokens=task.output_tokens,
        input_bytes=0,
        deadline_s=DEADLINE_S,
    )


def _complete(number: int, one: Served) -> Completion:
    task = one.task
    return Completion(
        number=number,
        node=NODE,
        bound_s=task.arrived_s,
        transfer_s=0.0,
        finished_s=task.ended_s,
        output_tokens=task.output_tokens,
        energy_j=one.energy_j,
    )
