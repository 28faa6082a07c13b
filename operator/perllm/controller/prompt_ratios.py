"""How many tokens a character of a prompt is, for each model: servers count tokens, while a task states only text.

It depends on the vocabulary of the model, on the language of its users, and on what the server puts around a prompt.
It starts at that of English, as if so many characters had been counted, and is that again after a restart.
"""

from dataclasses import dataclass

from perllm.api.prompt import CHARACTERS_PER_TOKEN
from perllm.api.served_run import RunEnd, ServedRun
from perllm.api.task import TaskSpec

PRIOR_CHARACTERS = 2000.0
KEPT = 0.98
"""Of what was counted before, with every further prompt; so about the last fifty matter."""

BOUNDS = (1.0 / 64.0, 8.0)
"""Tokens per character beyond which a report is not believed."""

MAX_MODELS = 1000
"""Models are named by users; of more, those are forgotten that were asked least recently."""


@dataclass(slots=True)
class _Count:
    characters: float = PRIOR_CHARACTERS
    tokens: float = PRIOR_CHARACTERS / CHARACTERS_PER_TOKEN


class PromptRatios:
    """Learns tokens per character from what servers report."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def find(self, model: str) -> float:
        """Return the tokens per character of prompts to a model."""
        count = self._counts.get(model) or _Count()
        return count.tokens / count.characters

    def learn(self, spec: TaskSpec, run: ServedRun) -> None:
        """Learn from a run that answered all prompts of a task, if its server has counted them."""
        is_whole = run.end is RunEnd.ANSWERED and (run.prompts is None or not run.prompts.failed)
        if not is_whole or not run.prompt_tokens or not spec.prompt_characters:
            return
        if not BOUNDS[0] <= run.prompt_tokens / spec.prompt_characters <= BOUNDS[1]:
            return
        count = self._counts.pop(spec.model, None) or _Count()
        count.characters = KEPT * count.characters + spec.prompt_characters
        count.tokens = KEPT * count.tokens + run.prompt_tokens
        self._counts[spec.model] = count
        if len(self._counts) > MAX_MODELS:
            del self._counts[next(iter(self._counts))]
