"""The models that something is known of, bounded in number: any tenant may ask for a model of any name.

A model is known once a task of it was placed or ended somewhere. Until then it shares one set of laws, without
outcomes, with all others: so examining a task leaves nothing behind.
"""

from collections.abc import Collection, Iterator

import numpy as np

from perllm.learning.lengths import LengthLaw
from perllm.learning.model_laws import ModelLaws, UsualTask
from perllm.policy.problem import FloatArray

MAX_MODELS = 512
"""Models known at a time, those with tasks in flight aside: 10 kB each, and 0.25 kB a node."""

MAX_ARRIVED = 4096
"""Models that are not known yet of which the usual task is remembered."""

KINDS = 2
"""Shapes of length per model: without and with a hint."""


class ModelTable:
    """Laws by model, those used least recently first.

    Every set of laws has a place in `shapes` that is its own for as long as it is known, so that tasks in flight refer
    to shapes by number.

    Attributes:
        unknown: the laws of all models that are not known.
        shapes: of the lengths of all models, by kind.
    """

    def __init__(self) -> None:
        self.unknown = ModelLaws(LengthLaw(0))
        self.shapes: FloatArray = self.unknown.lengths.shapes.copy()
        self._known: dict[str, ModelLaws] = {}
        self._free: list[int] = []
        self._arrived: dict[str, UsualTask] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[ModelLaws]:
        """Iterate over all laws, those of unknown models included."""
        yield self.unknown
        yield from self._known.values()

    def __contains__(self, model: object) -> bool:
        return model in self._known

    def find(self, model: str) -> ModelLaws:
        """Return the laws of a model; those of all unknown ones if it is not known."""
        return self._known.get(model, self.unknown)

    def use(self, model: str) -> ModelLaws:
        """Return the laws of a model, which is known from now on and the one used last."""
        laws = self._known.pop(model, None) or self._begin(model)
        self._known[model] = laws
        return laws

    def usual(self, model: str) -> UsualTask:
        """Return the usual task of a model, known or not."""
        if model in self._known:
            return self._known[model].usual
        usual = self._arrived.pop(model) if model in self._arrived else UsualTask()
        self._arrived[model] = usual
        if len(self._arrived) > MAX_ARRIVED:
            del self._arrived[next(iter(self._arrived))]
        return usual

    def publish(self, laws: ModelLaws) -> None:
        """Update the shapes of a model's lengths."""
        first_kind = laws.lengths.first_kind
        self.shapes[first_kind : first_kind + KINDS] = laws.lengths.shapes

    def surplus(self, in_use: Collection[str]) -> list[str]:
        """Return the models to forget: those without outcomes first, then those used least recently.

        Args:
            in_use: models that must not be forgotten, for tasks of them are in flight.
        """
        excess = len(self._known) - MAX_MODELS
        if excess <= 0:
            return []
        idle = [model for model in self._known if model not in in_use]
        idle.sort(key=lambda model: bool(self._known[model].summaries))
        return idle[:excess]

    def forget(self, model: str) -> ModelLaws:
        """Forget a model that is known; return its laws. Nothing in flight may refer to its shapes."""
        laws = self._known.pop(model)
        self._free.append(laws.lengths.first_kind)
        return laws

    def _begin(self, model: str) -> ModelLaws:
        if not self._free:
            self._free.append(len(self.shapes))
            self.shapes = np.concatenate([self.shapes, self.unknown.lengths.shapes])
        laws = ModelLaws(LengthLaw(self._free.pop()))
        laws.usual = self._arrived.pop(model, laws.usual)
        self.publish(laws)
        return laws
