"""One GPU and the engines of the models on it, which divide its time as processes do."""

from perllm_lab.hardware.engine import Engine
from perllm_lab.hardware.gpu import GpuType


class SharedGpu:
    """The engines of one GPU: one for each model that it has run, each with a batch of its own.

    The driver gives an equal share of the time to each process that has work, however large its batch is.

    Attributes:
        engines: at least one, so that the GPU has a meter before it runs anything.
    """

    __slots__ = ("_by_model", "_gpu", "engines")

    def __init__(self, gpu: GpuType, *, now_s: float) -> None:
        self._gpu = gpu
        self._by_model: dict[str, Engine] = {}
        self.engines = [Engine(gpu, now_s=now_s)]

    @property
    def tasks(self) -> int:
        """Tasks of all models in any state."""
        return sum(engine.tasks for engine in self.engines)

    def find(self, model: str, speed_factor: float, now_s: float) -> Engine:
        """Returns the engine of a model, which is started at that speed if there is none."""
        engine = self._by_model.get(model)
        if engine is None:
            engine = self.engines[0]
            if self._by_model:
                engine = Engine(self._gpu, now_s=now_s)
                engine.set_speed_factor(speed_factor, now_s)
                self.engines.append(engine)
            self._by_model[model] = engine
        return engine

    def divide(self, now_s: float, coming: Engine | None = None) -> None:
        """Divides the time among the engines that have tasks, or are about to get the first one."""
        if len(self.engines) == 1:
            return
        # Where nothing runs, the first one meters the idle power.
        busy = [engine for engine in self.engines if engine.tasks or engine is coming] or self.engines[:1]
        for engine in self.engines:
            engine.set_share(1.0 / len(busy) if engine in busy else 0.0, now_s)
