"""What is known of one model on all nodes."""

from dataclasses import dataclass, field

import numpy as np

from perllm.learning.features import LEAST_LATENCY_SHARES, OUTPUT_UNIT, PROMPT_UNIT
from perllm.learning.law import PooledLaw
from perllm.learning.lengths import LengthLaw
from perllm.learning.outcome import Outcome
from perllm.learning.priors import GENERIC, LOAD_S
from perllm.policy.arrays import Index, columns, extend
from perllm.policy.problem import FloatArray, IntArray

UNPROVEN = 0.02
"""Least share of the loading time that a node still needs until a task has completed there: runs until then say
something about loading, not about the law."""

ARRIVALS_AVERAGED = 200.0
"""How many arrivals the usual task is an average of."""


MOST_USUAL = 20.0
"""As many usual tasks as one counts at most in that average: any user may say that a prompt has ten million tokens, and
nodes without tasks yet would look empty by that measure."""


@dataclass(slots=True)
class UsualTask:
    """The mean of the tasks of a model that have arrived lately; unlike outcomes, arrivals are not selected."""

    prompt_tokens: float = 1000.0
    output_tokens: float = 200.0

    def add(self, prompt_tokens: float, output_tokens: float) -> None:
        """Include a task in the average."""
        self.prompt_tokens += _find_step(prompt_tokens, self.prompt_tokens)
        self.output_tokens += _find_step(output_tokens, self.output_tokens)


def _find_step(tokens: float, usual: float) -> float:
    return (min(tokens, MOST_USUAL * max(usual, 1.0)) - usual) / ARRIVALS_AVERAGED


@dataclass(slots=True)
class ArmSummary:
    """Plain averages of an arm's outcomes, for people."""

    count: int = 0
    latency_s: float = 0.0
    energy_j: float = 0.0
    energy_count: int = 0
    output_tokens: float = 0.0
    met: int = 0
    last_outcome_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Include an outcome in the averages."""
        self.count += 1
        self.latency_s += (outcome.latency_s - self.latency_s) / self.count
        self.output_tokens += (outcome.output_tokens - self.output_tokens) / self.count
        self.met += outcome.is_in_time
        self.last_outcome_s = max(self.last_outcome_s, outcome.finished_s)
        if outcome.energy_j is not None:
            self.energy_count += 1
            self.energy_j += (outcome.energy_j - self.energy_j) / self.energy_count


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """What is known of an arm, for people.

    Attributes:
        latency: coefficients of a task's seconds, in the order of its features.
        load_s: seconds to load the model.
        latency_spread: standard deviation of ln(actual / predicted) seconds.
        energy: coefficients of its joules.
        energy_spread: standard deviation of ln(actual / predicted) joules.
        median_tokens: of answers without a hint, to a prompt of mean length.
        length_spread: standard deviation of ln(actual / median) tokens.
    """

    latency: tuple[float, ...]
    load_s: float
    latency_spread: float
    energy: tuple[float, ...]
    energy_spread: float
    median_tokens: float
    length_spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRates:
    """The law of a model's time on n nodes, as what a run there consists of; arrays have shape (n,).

    Attributes:
        start_s: seconds until its input is fetched: a pod's start, or the round trip of a request.
        load_s: seconds to load the model.
        read_s: seconds per `PROMPT_UNIT` tokens read.
        solo_token_s: seconds per token written, were the task alone.
        contention_s: seconds per token that each further task on the same GPU adds.
    """

    start_s: FloatArray
    load_s: FloatArray
    read_s: FloatArray
    solo_token_s: FloatArray
    contention_s: FloatArray

    def find_first_s(self, read_tokens: float | FloatArray, cold: float | FloatArray) -> FloatArray:
        """Return the seconds to the first token written.

        Args:
            read_tokens: tokens read until then, those of others included.
            cold: share of the time to load the model that is still to come.
        """
        first_s: FloatArray = self.start_s + self.load_s * cold + self.read_s * (read_tokens / PROMPT_UNIT)
        return first_s

    def find_token_s(self, others: float | FloatArray) -> FloatArray:
        """Return the seconds per token written next to `others` tasks per GPU, while no prompts are read."""
        token_s: FloatArray = self.solo_token_s + self.contention_s * others
        return token_s


@dataclass(slots=True)
class ModelLaws:
    """What is known of one model on all nodes.

    Attributes:
        latency: seconds of a run, without the transfer of its input.
        energy: joules of inference.
        lengths: of its answers.
        summaries: by row, of nodes whose outcomes are remembered.
        registrations: of nodes, as many as it knows the GPU types of.
        usual: the mean task lately.
        load_s: by row, how long its GPU type takes to load it.
        loads_from_s: by row, when the node began to load it: -inf where it has served it, inf where it never did.
        unloaded: rows of nodes that were found without it and have not begun to load it since, so that the outcome of
            an earlier run, which may be learned late, does not say that they have it.
    """

    lengths: LengthLaw
    latency: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.latency, LEAST_LATENCY_SHARES))
    energy: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.energy))
    summaries: dict[int, ArmSummary] = field(default_factory=dict)
    registrations: int = 0
    usual: UsualTask = field(default_factory=UsualTask)
    load_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    loads_from_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    unloaded: set[int] = field(default_factory=set)

    def note_loaded(self, row: int) -> None:
        """Note that a node has the model."""
        self.unloaded.discard(row)
        self.loads_from_s[row] = -np.inf

    def note_loading(self, row: int, now_s: float) -> None:
        """Note that a node is about to load the model, unless it has it or loads it already."""
        self.unloaded.discard(row)
        self.loads_from_s[row] = min(self.loads_from_s[row], now_s)

    def note_unloaded(self, row: int) -> None:
        """Note that a node does not have the model."""
        self.unloaded.add(row)
        self.loads_from_s[row] = np.inf

    def cover(self, rows: int) -> None:
        """Make room for `rows` rows."""
        self.latency.cover(rows)
        self.energy.cover(rows)
        self.loads_from_s = extend(self.loads_from_s, rows, fill=np.inf)
        self.load_s = extend(self.load_s, rows, fill=LOAD_S)

    def find_rates(self, rows: Index, *, is_served: bool) -> RunRates:
        """Return the law of time on the nodes of `rows`, for a request or for a pod."""
        start_s, read_s, solo_token_s, contention_s, trip_s = columns(self.latency.coefficients.T, rows)
        return RunRates(
            start_s=trip_s if is_served else start_s,
            load_s=self.load_s[rows],
            read_s=read_s,
            solo_token_s=solo_token_s / OUTPUT_UNIT,
            contention_s=contention_s / OUTPUT_UNIT,
        )

    def alike(self, row: int) -> IntArray:
        """Return the rows of the nodes with the same GPU type, itself included."""
        return np.flatnonzero(self.latency.group_of_row == self.latency.group_of_row[row])

    def cold(self, rows: Index, now_s: float) -> FloatArray:
        """Return which share of the loading time each node still needs, shape (n,)."""
        loads_from_s = self.loads_from_s[rows]
        is_loaded = loads_from_s == -np.inf
        if is_loaded.all():
            return np.zeros(len(is_loaded))
        left: FloatArray = 1.0 - np.maximum(now_s - loads_from_s, 0.0) / np.maximum(self.load_s[rows], 1e-9)
        return np.where(is_loaded, 0.0, np.clip(left, UNPROVEN, 1.0))
