"""What was observed of a finished task."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run of a task on a node; times in seconds, energy in joules.

    Attributes:
        task_id: uid of the task.
        model: the model it ran.
        node: where it ran.
        prompt_tokens: tokens read.
        output_tokens: tokens written; the expectation where the run did not say.
        run_s: from binding to completion, without the transfer of the input.
        latency_s: from creation to completion.
        deadline_s: the task's deadline.
        inference_energy_j: its share of the node's energy; None where it could not be measured.
        transmission_energy_j: energy of moving its input.
        predicted_energy_j: both together, as expected when the task was placed.
        occupancy: mean number of tasks per GPU of the node while it ran, itself included.
        others_tokens: prompt tokens of others, per GPU, that it sat through.
        cold: share of the time to load the model that was still to come.
        hint_tokens: length of the answer that the task announced; None if it did not.
        run_error: ln of (decision to completion / what had been foreseen for the tokens it turned out to have); None
            if that is not known.
        energy_error: the same of the energy.
        resource_slack: compute and bandwidth slack when it was placed.
        finished_s: Unix time of completion.
        is_length_known: whether `output_tokens` was observed.
    """

    task_id: str
    model: str
    node: str
    prompt_tokens: float
    output_tokens: float
    run_s: float
    latency_s: float
    deadline_s: float
    inference_energy_j: float | None
    transmission_energy_j: float
    predicted_energy_j: float
    occupancy: float
    others_tokens: float
    cold: float
    hint_tokens: float | None
    run_error: float | None
    energy_error: float | None
    resource_slack: float
    finished_s: float
    is_length_known: bool = True

    @property
    def energy_j(self) -> float | None:
        """Transmission and inference; None where the latter could not be measured."""
        return None if self.inference_energy_j is None else self.inference_energy_j + self.transmission_energy_j


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was ended at its deadline; times in seconds.

    Attributes:
        task_id: uid of the task.
        model: the model it ran.
        node: where it ran.
        prompt_tokens: tokens to read.
        hint_tokens: length of the answer that the task announced; None if it did not.
        run_s: from binding to its end, without the transfer of its input.
        occupancy: as in `Outcome`.
        others_tokens: as in `Outcome`.
        cold: as in `Outcome`.
        foreseen_fixed_s: time to its first token that had been foreseen, without the transfer.
        foreseen_token_s: time per token that had been foreseen.
        ended_s: Unix time of its end.
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
    foreseen_fixed_s: float
    foreseen_token_s: float
    ended_s: float
