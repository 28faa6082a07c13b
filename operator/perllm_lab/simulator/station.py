"""A node of the fleet with its queue."""

from heapq import heappop, heappush
from math import inf

from numpy.random import SeedSequence, default_rng

from perllm_lab.hardware.node import SimulatedNode
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.simulator.scheduler import NodeReading, StationOrder


class Station:
    """One node, absent until it is booted. It may leave and return; its meters keep counting.

    Attributes:
        spec: what the node is.
        position: its index among the nodes.
        node: its hardware.
        due_s: when its next event is planned; inf for none.
        running: the tasks on it.
    """

    __slots__ = (
        "_order",
        "_queue",
        "_read_bytes",
        "_read_s",
        "_turn",
        "_waiting",
        "due_s",
        "node",
        "position",
        "running",
        "spec",
    )

    def __init__(self, spec: NodeSpec, position: int, order: StationOrder, link_seed: SeedSequence) -> None:
        self.spec = spec
        self.position = position
        self.node = SimulatedNode(spec.gpu, spec.link, default_rng(link_seed), gpus=spec.gpus)
        self.node.power_off(0.0)
        self.due_s = inf
        self.running: set[int] = set()
        self._order = order
        self._queue: list[tuple[float, int, int]] = []
        self._waiting: dict[int, int] = {}
        self._turn = 0
        self._read_bytes = 0.0
        self._read_s = 0.0

    def boot(self, now_s: float) -> None:
        """Power the hardware on."""
        self.node.power_on(now_s, resident=self.spec.resident)
        self._read_bytes, self._read_s = self.node.received_bytes, now_s

    def meter(self, now_s: float) -> tuple[float, float]:
        """Return the joules drawn so far: in total, and while idle."""
        self._advance(now_s)
        return self.node.energy_j, self.node.idle_energy_j

    def read(self, now_s: float) -> NodeReading:
        """Scrape the node: bandwidth as a link monitor reports it, traffic since the last scrape, and present power."""
        self._advance(now_s)
        span_s, received_bytes = now_s - self._read_s, self.node.received_bytes
        received_bps = (received_bytes - self._read_bytes) * 8.0 / span_s if span_s > 0.0 else 0.0
        self._read_bytes, self._read_s = received_bytes, now_s
        return NodeReading(self.node.bandwidth_bps, received_bps, self.node.power_w, self.node.speed_factor)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.running) < self.spec.slots

    def push(self, number: int, due_s: float) -> None:
        """Add a task to the queue; `due_s` is the moment of its deadline."""
        self._turn += 1
        self._waiting[number] = self._turn
        rank = due_s if self._order is StationOrder.DEADLINE else 0.0
        heappush(self._queue, (rank, self._turn, number))

    def pop(self) -> int | None:
        """Remove and return the first task of the queue; None when it is empty."""
        while self._queue:
            _, turn, number = heappop(self._queue)
            if self._waiting.get(number) == turn:
                del self._waiting[number]
                return number
        return None

    def withdraw(self, number: int) -> None:
        """Remove a task from anywhere in the queue."""
        del self._waiting[number]

    def clear(self) -> list[int]:
        """Empty the queue and return the tasks that were in it."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._queue.clear()
        return waiting

    def _advance(self, now_s: float) -> None:
        if self.node.advance(now_s):
            raise AssertionError(f"a task on {self.spec.name} finished by {now_s} s without an event")
