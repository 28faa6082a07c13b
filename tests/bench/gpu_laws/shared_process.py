"""A process that serves one or more models with the GPU that others use as well; its parent sends it orders."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from bench.gpu_laws.shapes import SHAPES
from bench.gpu_laws.shared_loads import Mark, Order, Span, repeat

if TYPE_CHECKING:
    from bench.gpu_laws.decoder import Decoder

ANSWERS_WITHIN_S = 60.0
ENDS_WITHIN_S = 10.0
CONTEXT = 1000


class ServingProcess:
    """The parent's end of it.

    Args:
        shapes: Of its models. Each has a stream of its own.
    """

    def __init__(self, shapes: Sequence[str]) -> None:
        context = get_context("spawn")
        self.shapes = tuple(shapes)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.shapes), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, message: object) -> None:
        """Send a message."""
        self._pipe.send(message)

    def receive(self) -> Any:
        """Return its answer.

        Raises:
            RuntimeError: it failed, or says nothing.
        """
        if not self._pipe.poll(ANSWERS_WITHIN_S):
            raise RuntimeError(f"no answer from the process of {self.shapes}")
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise RuntimeError(f"the process of {self.shapes} failed") from answer
        return answer

    def stop(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(ENDS_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, shapes: Sequence[str]) -> None:
    """Load the models; then, until the parent has gone, get ready for orders, and do them in the window given next."""
    import torch

    from bench.gpu_laws.decoder import Decoder

    decoders = {shape: Decoder(SHAPES[shape], seed=number) for number, shape in enumerate(shapes)}
    torch.cuda.synchronize()
    pipe.send("loaded")
    try:
        while True:
            orders: list[Order] = pipe.recv()
            try:
                _follow(pipe, orders, decoders)
            except EOFError:
                return
            except Exception as error:
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
            torch.cuda.empty_cache()
    except EOFError:
        return


def _follow(pipe: Connection, orders: Sequence[Order], decoders: "Mapping[str, Decoder]") -> None:
    launches = [_prepare(order, decoders[order.load.shape]) for order in orders]
    pipe.send("ready")
    window: Span = pipe.recv()

    def run(order: Order, launch: Callable[[], Mark]) -> list[Span]:
        return repeat(order, window, launch=launch, clock=time.perf_counter, sleep=time.sleep)

    with ThreadPoolExecutor(len(orders)) as threads:
        pipe.send(list(threads.map(run, orders, launches)))


def _prepare(order: Order, decoder: "Decoder") -> Callable[[], Mark]:
    """Return what launches a pass on a stream of its own."""
    import torch

    from bench.gpu_laws.decoder import Pass

    load = order.load
    graph = Pass(decoder, tasks=load.tasks, context=CONTEXT, prompt=load.prompt).capture()
    stream = torch.cuda.Stream()

    def launch() -> Mark:
        with torch.cuda.stream(stream):
            graph()
            event = torch.cuda.Event()
            event.record()
        mark: Mark = event
        return mark

    for _ in range(3):
        launch().synchronize()
    return launch
