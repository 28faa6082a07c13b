"""A scheduler of the real policies, and nodes whose published laws make every choice plain.

By those laws a task of 1,000 prompt tokens and 200 tokens of answer takes about 2.4 s and 650 J on the H100, 22 s and
580 J on the Orin, both alone. Answers are not that long for sure: the 200 tokens are the mean of what is expected.
"""

from dataclasses import replace

from perllm.api.task_status import RunsAs
from perllm.learning.learner import Learner
from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Policy
from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.link import LinkType
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.fleet import SimulationSettings
from perllm_lab.simulator.placing import OPERATOR_MODE, DeploymentMode, Placing
from perllm_lab.simulator.scheduler import Completion, RejectTask, SendTask
from perllm_lab.workload.requests import Request

FAST = "h100-8b"
SLOW = "jetson-agx-orin-8b"
LINK = LinkType(bandwidth_bps=1e9, rtt_s=0.0)
DEADLINES_FIRST = CsUcbParameters(rent=0.0, price=1000.0)
"""Chance and harm decide, energy between equals only."""


def node(name: str, gpu: str = FAST, slots: int | None = None) -> NodeSpec:
    kind = CATALOGUE[gpu]
    if slots is not None:
        kind = replace(kind, slots=slots)
    return NodeSpec(name, "edge", "chat", kind, LINK, resident=True)


def request(deadline_s: float, at_s: float = 0.0, prompt_tokens: int = 1000, output_tokens: int = 200) -> Request:
    return Request("task", "chat", at_s, prompt_tokens, output_tokens, 4000, deadline_s)


class Desk:
    """A scheduler with its nodes; tasks are numbered as they are asked for."""

    def __init__(
        self,
        *nodes: NodeSpec,
        policy: Policy | None = None,
        mode: DeploymentMode | None = None,
        runs_as: RunsAs = RunsAs.POD,
    ) -> None:
        policy = policy or CsUcb(DEADLINES_FIRST)
        self.learner = Learner(policy)
        self.placing = Placing(
            policy.name, policy, mode or OPERATOR_MODE, SimulationSettings(runs_as=runs_as), learner=self.learner
        )
        for spec in nodes:
            self.placing.join(spec, 0.0)
        self.asked: list[Request] = []

    def ask(self, *requests: Request, now_s: float = 0.0) -> list[tuple[int, str | None]]:
        """Submit tasks; return what is done: (number, node), no node for a rejection."""
        for each in requests:
            self.placing.submit(len(self.asked), each, now_s)
            self.asked.append(each)
        return self.decide(now_s)

    def decide(self, now_s: float) -> list[tuple[int, str | None]]:
        """Let it decide; what it starts is bound at once."""
        done = [_read(action) for action in self.placing.decide(now_s)]
        for number, place in done:
            if place is not None:
                self.placing.bind(number, now_s)
        return done

    def complete(self, number: int, node: str, now_s: float, output_tokens: int = 200) -> None:
        """End a task that was bound at 0 s and has run well, and learn from it."""
        self.placing.release(number, now_s, output_tokens)
        self.placing.learn(Completion(number, node, 0.0, 0.0, now_s, output_tokens, 500.0), now_s)

    def expect_tokens(self) -> float:
        return self.learner.expect_length("chat", 1000, None).mean


def _read(action: SendTask | RejectTask) -> tuple[int, str | None]:
    return action.number, action.node if isinstance(action, SendTask) else None
