"""What was observed of a finished task, and whether it is plausible."""

from dataclasses import dataclass
from enum import StrEnum

from perllm.api.base import MAX_TOKENS

MAX_RUN_S = 7 * 24 * 3600.0
"""No run takes longer: deadlines are at most a day."""

MAX_ENERGY_J = 1e9
"""More than a rack of GPUs takes in a day."""

MAX_LOG_RATIO = 40.0
"""No prediction is off by more: between a microsecond and the longest run are 28 powers of e."""

MAX_UNIX_S = 4e9
"""Beyond the year 2096 a clock is wrong."""

MAX_OTHERS = 1e6
"""Other tasks on the same GPU."""


class ImplausibleFigure(StrEnum):
    """Why an outcome is discarded: which of its figures is impossible."""

    TOKENS = "tokens"
    TIME = "time"
    ENERGY = "energy"
    DECISION = "decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRun:
    """What is known of a run of a task on a node, however it ended; times in seconds.

    Attributes:
        task_id: uid of the task.
        model: the model it ran.
        node: where it ran.
        prompt_tokens: tokens read, or to read.
        hint_tokens: length of the answer that the task announced; None if it did not.
        run_s: from binding to its end, without the transfer of the input.
        occupancy: mean number of tasks of its model per GPU of the node that wrote while it did, itself included.
        others_tokens: prompt tokens of others of its model, per GPU, that were read while it was there.
        cold: share of the time to load the model that was still to come.
        load_s: seconds in which its server loaded the model, as measured; None if that was not.
        is_served: whether it ran as a request, so that no pod had to start.
        service: whose answer it was, `<namespace>/<name>`, or the namespace alone; empty if that is not known.
        pace: share of the time of its GPU that its model had meanwhile, next to other models; 1 if it had all.
    """

    task_id: str
    model: str
    node: str
    prompt_tokens: float
    hint_tokens: float | None
    run_s: float
    occupancy: float
    others_tokens: float
    cold: float
    load_s: float | None = None
    is_served: bool = False
    service: str = ""
    pace: float = 1.0

    @property
    def has_possible_tokens(self) -> bool:
        """Whether its numbers of tokens are possible."""
        return _are_tokens(self.prompt_tokens) and (self.hint_tokens is None or _are_tokens(self.hint_tokens))

    @property
    def has_possible_load(self) -> bool:
        """Whether what it is said to have met on its node is possible."""
        is_met = 0 <= self.occupancy <= MAX_OTHERS and 0 <= self.others_tokens <= MAX_TOKENS * MAX_OTHERS
        is_met = is_met and 1.0 / MAX_OTHERS <= self.pace <= 1
        return is_met and 0 <= self.cold <= 1 and (self.load_s is None or 0 <= self.load_s <= self.run_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One finished run of a task on a node; times in seconds, energy in joules.

    Attributes:
        run: the run.
        output_tokens: tokens written; the expectation where the run did not say.
        latency_s: from creation to completion.
        deadline_s: the task's deadline.
        inference_energy_j: its share of the node's energy; None where it could not be measured.
        transmission_energy_j: energy of moving its input.
        predicted_energy_j: both together, as expected when the task was placed.
        run_error: ln of (decision to completion / the prediction for the tokens it turned out to have); None if that
            is not known.
        energy_error: the same of the energy.
        resource_slack: compute and bandwidth slack when it was placed.
        finished_s: Unix time of completion.
        is_length_known: whether `output_tokens` is the observed length of one answer.
        is_sequential: whether it wrote one answer at a time; the laws say nothing of several at once.
        law_s: seconds, without the start, that the law of its decision gives to the run as it turned out; 0 if it is
            not known.
    """

    run: ObservedRun
    output_tokens: float
    latency_s: float
    deadline_s: float
    inference_energy_j: float | None
    transmission_energy_j: float
    predicted_energy_j: float
    run_error: float | None
    energy_error: float | None
    resource_slack: float
    finished_s: float
    is_length_known: bool = True
    is_sequential: bool = True
    law_s: float = 0.0

    @property
    def is_in_time(self) -> bool:
        """Whether it was complete by its deadline."""
        return self.latency_s <= self.deadline_s

    @property
    def energy_j(self) -> float | None:
        """Transmission and inference; None where the latter could not be measured."""
        return None if self.inference_energy_j is None else self.inference_energy_j + self.transmission_energy_j

    def find_fault(self) -> ImplausibleFigure | None:
        """Return which of its figures is impossible; None if none is."""
        if not (self.run.has_possible_tokens and _are_tokens(self.output_tokens)):
            return ImplausibleFigure.TOKENS
        if not (
            0 < self.run.run_s <= MAX_RUN_S and 0 <= self.latency_s <= MAX_RUN_S and 0 < self.finished_s < MAX_UNIX_S
        ):
            return ImplausibleFigure.TIME
        energies_j = (self.inference_energy_j or 0.0, self.transmission_energy_j, self.predicted_energy_j)
        if not all(0 <= energy_j <= MAX_ENERGY_J for energy_j in energies_j):
            return ImplausibleFigure.ENERGY
        errors = (self.run_error or 0.0, self.energy_error or 0.0, self.resource_slack)
        if not (
            self.deadline_s > 0 and all(abs(error) <= MAX_LOG_RATIO for error in errors) and self.run.has_possible_load
        ):
            return ImplausibleFigure.DECISION
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run that was ended at its deadline; times in seconds.

    Attributes:
        run: the run.
        foreseen_fixed_s: predicted time to its first token, without the transfer.
        foreseen_token_s: predicted time per token.
        ended_s: Unix time of its end.
        is_one_answer: whether it was to write one answer, not those to several prompts.
    """

    run: ObservedRun
    foreseen_fixed_s: float
    foreseen_token_s: float
    ended_s: float
    is_one_answer: bool = True

    def find_fault(self) -> ImplausibleFigure | None:
        """Return which of its figures is impossible; None if none is."""
        if not self.run.has_possible_tokens:
            return ImplausibleFigure.TOKENS
        if not (0 <= self.run.run_s <= MAX_RUN_S and 0 < self.ended_s < MAX_UNIX_S):
            return ImplausibleFigure.TIME
        foreseen = (self.foreseen_fixed_s, self.foreseen_token_s)
        if not (all(abs(span_s) <= MAX_RUN_S for span_s in foreseen) and self.run.has_possible_load):
            return ImplausibleFigure.DECISION
        return None


def _are_tokens(count: float) -> bool:
    return 0 < count <= MAX_TOKENS
