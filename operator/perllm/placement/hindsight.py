"""From what was decided and what was observed to what there is to learn; the simulator uses the same.

Several prompts of a task are asked one after the other. Its time and energy are the sums of theirs, and the laws are
linear in tokens, so both are learned from it. The sum of its answers says little about the length of one, which is not.
How many prompts a pod has is known only from its report, so its length is predicted as that of one answer, unless the
task states it.
"""

from dataclasses import dataclass, replace
from math import log

from perllm.learning.outcome import Ended, ObservedRun, Outcome
from perllm.placement.counterfactual import Circumstances
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence

LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """What was observed of a complete run; times in seconds.

    Attributes:
        prompt_tokens: tokens read.
        output_tokens: tokens written; None where the run did not say.
        bound_s: Unix time at which the node took it.
        finished_s: Unix time of completion.
        transfer_s: the transfer of its input.
        latency_s: from creation to completion.
        deadline_s: the task's deadline.
        inference_energy_j: its share of the node's energy; None where it could not be measured.
        residence: what it met on its node; None where it was not observed.
        load_s: seconds in which its server loaded the model, as measured; None where that was not.
        prompts: number of prompts that it had by its own account; 1 where it did not say.
        is_sequential: whether it asked them one after the other.
    """

    prompt_tokens: float
    output_tokens: float | None
    bound_s: float
    finished_s: float
    transfer_s: float
    latency_s: float
    deadline_s: float
    inference_energy_j: float | None
    residence: Residence | None
    load_s: float | None = None
    prompts: int = 1
    is_sequential: bool = True


def judge_run(decision: Decision, run: CompletedRun) -> Outcome:
    """Return what there is to learn from a complete run."""
    inference, forecast, energy = decision.inference, decision.forecast, decision.forecast.energy
    tokens = inference.output_tokens if run.output_tokens is None else run.output_tokens
    met = run.residence or expected_residence(decision, tokens)
    run_error = energy_error = None
    if run.output_tokens is not None:
        run_error = _log_ratio(run.finished_s - decision.decided_s, forecast.latency_given_s(tokens))
    if run.output_tokens is not None and run.inference_energy_j is not None:
        spent_j = run.inference_energy_j + energy.transmission_energy_j
        energy_error = _log_ratio(spent_j, forecast.energy_given_j(tokens))
    return Outcome(
        run=replace(
            _describe_run(decision, met, run.prompt_tokens, run.finished_s - run.bound_s - run.transfer_s),
            load_s=run.load_s,
        ),
        output_tokens=tokens,
        latency_s=run.latency_s,
        deadline_s=run.deadline_s,
        inference_energy_j=run.inference_energy_j,
        transmission_energy_j=energy.transmission_energy_j,
        predicted_energy_j=energy.energy_j,
        run_error=run_error,
        energy_error=energy_error,
        resource_slack=decision.assessment.resource_slack,
        finished_s=run.finished_s,
        is_length_known=run.output_tokens is not None and max(inference.prompts, run.prompts) == 1,
        law_s=_apply_law(decision, tokens, met),
        is_sequential=run.is_sequential,
    )


def judge_ended(decision: Decision, ended_s: float, residence: Residence | None, prompts: int = 1) -> Ended:
    """Return what there is to learn from a run that was ended at its deadline.

    Args:
        decision: by which it ran.
        ended_s: Unix time of its end.
        residence: what it met on its node; None where it was not observed.
        prompts: number of prompts that it had by its own account; 1 where it did not say.
    """
    inference, times = decision.inference, decision.forecast.times
    met = residence or expected_residence(decision, inference.output_tokens)
    return Ended(
        run=_describe_run(decision, met, inference.prompt_tokens, ended_s - decision.decided_s - times.transfer_s),
        foreseen_fixed_s=times.fixed_s - times.transfer_s,
        foreseen_token_s=times.token_s,
        ended_s=ended_s,
        is_one_answer=max(inference.prompts, prompts) == 1,
    )


def read_circumstances(outcome: Outcome) -> Circumstances:
    """Return what is known of a run that has ended."""
    return Circumstances(
        prompt_tokens=outcome.run.prompt_tokens,
        output_tokens=outcome.output_tokens,
        residence=Residence(outcome.run.occupancy, outcome.run.others_tokens, outcome.run.pace),
        is_served=outcome.run.is_served,
    )


def expected_residence(decision: Decision, output_tokens: float) -> Residence:
    """Return what a task was expected to meet: the tasks there when it was placed, and their usual share of reading."""
    times = decision.forecast.times
    occupancy = decision.forecast.occupancy / decision.forecast.gpus
    pace = decision.forecast.pace
    free_s = (times.solo_token_s + times.contention_s * max(occupancy - 1.0, 0.0)) / pace
    reading_s = max(times.token_s - free_s, 0.0) * output_tokens
    return Residence(occupancy, reading_s * decision.inference.prompt_tokens / max(times.reading_s, LEAST), pace)


def _describe_run(decision: Decision, met: Residence, prompt_tokens: float, run_s: float) -> ObservedRun:
    inference = decision.inference
    return ObservedRun(
        task_id=decision.task_id,
        model=inference.model,
        node=decision.node,
        prompt_tokens=prompt_tokens,
        hint_tokens=inference.hint_tokens,
        run_s=max(run_s, 0.0),
        occupancy=met.occupancy,
        others_tokens=met.others_tokens,
        cold=decision.forecast.times.cold,
        is_served=inference.is_served,
        service=inference.service,
        pace=met.pace,
    )


def _apply_law(decision: Decision, output_tokens: float, met: Residence) -> float:
    """Return the seconds that a run takes by the law that its decision was made by, without its start."""
    times, inference = decision.forecast.times, decision.inference
    token_s = times.solo_token_s + times.contention_s * max(met.occupancy - 1.0, 0.0)
    prompts = 1.0 + met.others_tokens / inference.prompt_tokens
    return (times.reading_s * decision.forecast.pace * prompts + output_tokens * token_s) / met.pace


def _log_ratio(came: float, foreseen: float) -> float:
    return log(max(came, LEAST) / max(foreseen, LEAST))
