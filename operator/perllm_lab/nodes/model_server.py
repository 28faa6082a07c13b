"""The model server of one simulated node: runs requests on the machine, in one batch with pods of the same model."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from perllm.api.names import to_label_value
from perllm_lab.hardware.node import Finished, Job
from perllm_lab.nodes.ground_truth import RequestTruth
from perllm_lab.nodes.machine import JobCallbacks, Machine
from perllm_lab.nodes.metrics import FirstTokens
from perllm_lab.nodes.pacer import Pacer
from perllm_lab.nodes.records import request_truth
from perllm_lab.nodes.served_request import RequestEnd, ServedRequest
from perllm_lab.workload.prompts import PromptMark


class ServerFullError(Exception):
    """So many requests wait that the server does not accept more."""


@dataclass(frozen=True, slots=True)
class ServerSurroundings:
    """What all model servers of a fleet share: the pace of streams, the ground truth."""

    pacer: Pacer
    record: Callable[[RequestTruth], None]


class SimulatedServer:
    """Runs the requests to one node. All methods run in the event loop and never wait.

    Attributes:
        machine: runs them.
        first_tokens: the times to the first token of the requests that have succeeded.
        max_waiting: how many may wait in the server before it accepts no more; None for any number, as vLLM does.
        shows_load: whether it has metrics.
    """

    def __init__(self, machine: Machine, surroundings: ServerSurroundings) -> None:
        self.machine = machine
        self.first_tokens = FirstTokens()
        self.max_waiting: int | None = None
        self.shows_load = True
        self._around = surroundings
        self._requests: dict[str, ServedRequest] = {}
        self._numbers = itertools.count()
        self._runs = True

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._runs and self.machine.is_up

    def submit(self, request: ServedRequest, work: PromptMark) -> None:
        """Run a request of this size.

        Raises:
            ServerFullError: too many wait.
        """
        if self.max_waiting is not None and self.machine.sample_engines().waiting >= self.max_waiting:
            raise ServerFullError
        request.key = f"{self.machine.spec.name}/request-{next(self._numbers)}"
        self._requests[request.key] = request
        model = to_label_value(self.machine.spec.model)
        job = Job(request.key, work.prompt_tokens, work.output_tokens, work.input_bytes, is_request=True, model=model)
        callbacks = JobCallbacks(on_finish=partial(self._finish, request), on_decode=partial(self._decode, request))
        self.machine.start(job, callbacks)

    def abort(self, request: ServedRequest) -> None:
        """End a request whose client has gone, unless it has ended; its place in the batch is free at once."""
        if request.end is None:
            self._stop(request, RequestEnd.ABORTED)

    def stop(self) -> None:
        """Stop listening, as after a crash: all requests are lost."""
        self._runs = False
        self.lose_requests()

    def start(self) -> None:
        """Listen again."""
        self._runs = True

    def lose_requests(self) -> None:
        """End all requests without an answer."""
        for request in list(self._requests.values()):
            self._stop(request, RequestEnd.LOST)

    def _decode(self, request: ServedRequest) -> None:
        if request.streams:
            self._around.pacer.add(request.key, partial(self._refresh, request))
            request.grow(1)

    def _refresh(self, request: ServedRequest) -> None:
        self.machine.step()
        if request.end is None:
            request.grow(self.machine.generated(request.key))

    def _finish(self, request: ServedRequest, run: Finished) -> None:
        request.tokens = run.job.output_tokens
        self._end(request, run, RequestEnd.SUCCEEDED)
        self.first_tokens.add((run.decode_s - run.transferred_s) / self.machine.clock.speed)

    def _stop(self, request: ServedRequest, end: RequestEnd) -> None:
        self.machine.step()
        if request.end is not None:
            return
        request.tokens = self.machine.generated(request.key)
        run = self.machine.stop(request.key)
        if run is not None:
            self._end(request, run, end)

    def _end(self, request: ServedRequest, run: Finished, end: RequestEnd) -> None:
        del self._requests[request.key]
        self._around.pacer.discard(request.key)
        request.finish(end)
        self._around.record(request_truth(request, run, self.machine.spec, self.machine.clock))
