"""Schedulers that are simple enough to compute by hand."""

from collections.abc import Mapping, Sequence
from math import inf
from os import _exit

from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.experiment import BuildContext
from perllm_lab.simulator.scheduler import Completion, NodeReading, QueueRules, RejectTask, SendTask, Strategy
from perllm_lab.workload.requests import Request


class RoundRobin:
    """Sends each task to the next node as soon as it has come; records all notifications."""

    def __init__(self, queue_rules: QueueRules | None = None) -> None:
        self.name = "round-robin"
        self.queue_rules = queue_rules or QueueRules()
        self.nodes: list[str] = []
        self.pending: list[int] = []
        self.diary: list[tuple[float, str, object]] = []
        self.turn = 0

    def join(self, node: NodeSpec, now_s: float) -> None:
        self.nodes.append(node.name)
        self.diary.append((now_s, "join", node.name))

    def leave(self, node: str, now_s: float) -> None:
        self.nodes.remove(node)
        self.diary.append((now_s, "leave", node))

    def observe(self, readings: Mapping[str, NodeReading], now_s: float) -> None:
        self.diary.append((now_s, "observe", dict(readings)))

    def submit(self, number: int, request: Request, now_s: float) -> None:
        self.pending.append(number)
        self.diary.append((now_s, "submit", number))

    def decide(self, now_s: float) -> Sequence[SendTask | RejectTask]:
        if not self.nodes:
            return []
        pending, self.pending = self.pending, []
        return [self.place(number) for number in pending]

    def place(self, number: int) -> SendTask | RejectTask:
        self.turn += 1
        return SendTask(number, self.nodes[(self.turn - 1) % len(self.nodes)])

    def next_decision_s(self) -> float:
        return inf

    def bind(self, number: int, now_s: float) -> None:
        self.diary.append((now_s, "bind", number))

    def release(self, number: int, now_s: float, output_tokens: int | None = None) -> None:
        if number in self.pending:
            self.pending.remove(number)
        self.diary.append((now_s, "release", number))

    def learn(self, completion: Completion, now_s: float) -> None:
        self.diary.append((now_s, "learn", completion))

    def notified_of(self, what: str) -> list[tuple[float, object]]:
        return [(at_s, content) for at_s, entry, content in self.diary if entry == what]


def build(name: str, context: BuildContext) -> Strategy:
    """Here and not in a test, so that other processes find it."""
    if name == "broken":
        raise ZeroDivisionError("nothing to divide by")
    if name == "dying":
        _exit(3)
    scheduler = RoundRobin(QueueRules(drops=name == "dropping"))
    scheduler.name = name
    return scheduler
