"""How urgent a task is, before a node is sought for it.

    laxity = deadline - now - expected residence time; `now` is the same for all tasks, so they rank by the latest
             moment at which they have to start

The expected residence time is that of a usual placement of the task's model, scaled to the task's prompt and answer.
The model's seconds that do not depend on the task, seconds per prompt token and seconds per output token are running
means over its decisions, the newest with weight `STEP`. Until a model is placed for the first time, its tasks rank by
their deadlines.
"""

from collections import OrderedDict
from dataclasses import dataclass

from perllm.placement.placer import Placement

STEP = 0.1

MAX_MODELS = 1000
"""Models that are remembered; the least recently placed one is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Pace:
    fixed_s: float
    read_token_s: float
    token_s: float

    def move(self, newest: "_Pace") -> "_Pace":
        return _Pace(
            self.fixed_s + STEP * (newest.fixed_s - self.fixed_s),
            self.read_token_s + STEP * (newest.read_token_s - self.read_token_s),
            self.token_s + STEP * (newest.token_s - self.token_s),
        )


class ResidenceTimes:
    """Expected residence times by model."""

    def __init__(self) -> None:
        self._paces: OrderedDict[str, _Pace] = OrderedDict()

    def observe(self, placement: Placement, arm: int) -> None:
        """Include a decision for an arm in the means of its model."""
        outlook, inference = placement.outlook, placement.inference
        reading_s = float(outlook.times.reading_s[arm])
        newest = _Pace(
            float(outlook.times.fixed_s[arm]) - reading_s,
            reading_s / max(inference.prompt_tokens, 1.0),
            float(outlook.times.token_s[arm]),
        )
        known = self._paces.pop(inference.model, None)
        self._paces[inference.model] = newest if known is None else known.move(newest)
        if len(self._paces) > MAX_MODELS:
            self._paces.popitem(last=False)

    def expect_s(self, model: str, prompt_tokens: float, output_tokens: float) -> float:
        """Return how long a task is expected to occupy its node; 0 while nothing is known of its model."""
        pace = self._paces.get(model)
        if pace is None:
            return 0.0
        return pace.fixed_s + prompt_tokens * pace.read_token_s + output_tokens * pace.token_s
