"""What a complete run teaches the laws of time and energy."""

import numpy as np

from perllm.learning.features import MAX_READING, PROMPT_UNIT, energy_features, latency_features
from perllm.learning.loading import learn_cold_run, learn_measured_load
from perllm.learning.model_laws import ModelLaws
from perllm.learning.outcome import ObservedRun, Outcome
from perllm.policy.problem import FloatArray


def learn_run(known: ModelLaws, row: int, outcome: Outcome) -> None:
    """Account for an outcome in the laws of time and energy."""
    occupancy, prompt, output = max(outcome.run.occupancy, 1.0), outcome.run.prompt_tokens, outcome.output_tokens
    others, pace = limit_readable(outcome.run, known.latency.coefficients[row]), outcome.run.pace
    features = latency_features(prompt, others, output, occupancy, pace=pace, is_served=outcome.run.is_served)
    if outcome.run.load_s is not None:
        learn_measured_load(known, row, outcome.run.load_s)
        known.latency.learn(row, features, max(outcome.run.run_s - outcome.run.load_s, 0.0), None)
    elif outcome.run.cold > 0.0:
        learn_cold_run(known, row, outcome.run, features)
    else:
        error = _find_scatter(outcome, features, known.latency.coefficients[row])
        known.latency.learn(row, features, outcome.run.run_s, error)
    if outcome.inference_energy_j is not None:
        features = energy_features(prompt, output, occupancy)
        known.energy.learn(row, features, outcome.inference_energy_j, outcome.energy_error)


def limit_readable(run: ObservedRun, coefficients: FloatArray) -> float:
    """Return how many of others' prompt tokens a node can have read during a run, given those that were to be read."""
    most = MAX_READING * (run.run_s * run.pace) / max(float(coefficients[1]), 1e-9) * PROMPT_UNIT
    return min(run.others_tokens, most)


def _find_scatter(outcome: Outcome, features: FloatArray, coefficients: FloatArray) -> float | None:
    """Return how far off the decision would have been by the present law; None if that is not known.

    What the law has learned since is not an error that later decisions will make.
    """
    if outcome.run_error is None or outcome.law_s <= 0.0:
        return outcome.run_error
    parts_s = features * coefficients
    start_s, present_s = float(parts_s[0] + parts_s[4]), float(parts_s[1:4].sum())
    return outcome.run_error - float(np.log((start_s + present_s) / (start_s + outcome.law_s)))
