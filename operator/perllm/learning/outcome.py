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
        occupancy: mean number of tasks on the node while it ran, itself included.
        resource_slack: compute and bandwidth slack when it was placed.
        finished_s: Unix time of completion.
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
    resource_slack: float
    finished_s: float

    @property
    def energy_j(self) -> float | None:
        """Transmission and inference; None where the latter could not be measured."""
        return None if self.inference_energy_j is None else self.inference_energy_j + self.transmission_energy_j
