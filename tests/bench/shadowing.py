"""The plain kube-scheduler in a simulation, with an operator in shadow mode next to it."""

from collections import deque
from collections.abc import Sequence
from math import inf
from random import Random

from perllm.learning.learner import Learner
from perllm.placement.kube_scheduler import KubeScheduler
from perllm.placement.rehearsal import OtherScheduler
from perllm.policy.contextual import CsUcb
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.placing import PLAIN_MODE, Placing
from perllm_lab.simulator.scheduler import RejectTask, SendTask
from perllm_lab.workload.requests import Request


class Shadowing(Placing):
    """kube-scheduler places tasks as they arrive, and keeps them in one queue while no node has room.

    Args:
        settings: of the simulation.
        rng: breaks ties.
        counts_from: number of the first task whose savings count.

    Attributes:
        learner: what shadow mode has learned.
    """

    def __init__(self, settings: SimulationSettings, rng: Random, *, counts_from: int = 0) -> None:
        policy = CsUcb()
        self.learner = Learner(policy)
        super().__init__(
            "kube-scheduler",
            policy,
            PLAIN_MODE,
            settings,
            learner=self.learner,
            other=OtherScheduler.PERLLM,
            counts_from=counts_from,
        )
        self._kube_scheduler = KubeScheduler(self._fleet, rng)
        self._queue: deque[str] = deque()

    def submit(self, number: int, request: Request, now_s: float) -> None:
        """Queue a task, and rehearse what PerLLM would do with it."""
        self._now_s = now_s
        self._scheduler.rehearse(self._note_arrival(str(number), request))
        self._queue.append(str(number))

    def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
        """Place the tasks at the head of the queue while some node has room."""
        self._now_s = now_s
        actions: list[SendTask | RejectTask] = []
        while self._queue:
            task_id = self._queue[0]
            placement = self._scheduler.consider(self._requests[task_id])
            arm, arms = self._kube_scheduler.choose(placement), placement.arms
            if arm is None or arms.compute_used[arm] > arms.compute_capacity[arm]:
                break
            self._queue.popleft()
            decision = self._decisions[task_id] = self._scheduler.explain(placement, placement.names[arm])
            self._scheduler.confirm(decision, placement.request.slots)
            actions.append(SendTask(int(task_id), decision.node, self._forecast(decision, placement)))
        return actions

    def next_decision_s(self) -> float:
        """Return never: it decides only when something happens."""
        return inf
