"""Announces what shadow mode finds: a log line and a count for each pod."""

import logging

from perllm.cluster.pod import Pod
from perllm.learning.outcome import ImplausibleFigure
from perllm.metrics import OperatorMetrics
from perllm.placement.counterfactual import Ending, Prospect
from perllm.placement.decision import Decision

log = logging.getLogger("perllm.decisions")


class ShadowReport:
    """Reports what is found to people; nothing depends on it."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._metrics = metrics

    def decided(self, pod: Pod, prospect: Prospect | None) -> None:
        """Announce what PerLLM would have done with a pod that has arrived."""
        if prospect is None:
            log.info("%s would get no node", pod.key, extra={"event": "shadow_decision", "pod": pod.key})
            return
        forecast, wait_s = prospect.forecast, prospect.wait_s
        log.info(
            "%s would go to %s %s: %.2f s and %.0f J predicted, in time with a chance of %.1f %%",
            pod.key,
            prospect.node,
            f"after about {wait_s:.1f} s" if wait_s else "now",
            forecast.times.latency_s,
            forecast.energy.energy_j,
            100 * forecast.hit_chance,
            extra={
                "event": "shadow_decision",
                "pod": pod.key,
                "node": prospect.node,
                "wait_s": round(wait_s, 3),
                "predicted_latency_s": round(forecast.times.latency_s, 3),
                "predicted_energy_j": round(forecast.energy.energy_j, 2),
                "hit_chance": round(forecast.hit_chance, 4),
            },
        )

    def bound(self, decision: Decision) -> None:
        """Count a pod by whether its scheduler chose as PerLLM would have."""
        other = decision.counterfactual
        choice = "none" if other is None else "same" if other.node == decision.node else "other"
        self._metrics.savings.shadowed.labels(choice).inc()

    def discarded(self, fault: ImplausibleFigure) -> None:
        """Count a pod that has reported what cannot be."""
        self._metrics.learning.discarded.labels(fault).inc()

    def ended(self, pod: Pod, ending: Ending, latency_s: float) -> None:
        """Announce what a pod took, next to what was expected of it where PerLLM would have put it."""
        real, other = ending.real, ending.other
        other_j = other.forecast.energy_given_j(ending.output_tokens)
        other_s = other.forecast.latency_given_s(ending.output_tokens)
        log.info(
            "%s took %.2f s and %s on %s, %s; on %s %.2f s and %.0f J were expected",
            pod.key,
            latency_s,
            "unknown energy" if ending.energy_j is None else f"{ending.energy_j:.0f} J",
            real.node if real else "no node",
            "in time" if ending.is_met else "too late",
            other.node,
            other_s,
            other_j,
            extra={
                "event": "shadow_ended",
                "pod": pod.key,
                "node": real.node if real else None,
                "other_node": other.node,
                "observed_latency_s": round(latency_s, 3),
                "observed_energy_j": ending.energy_j,
                "other_latency_s": round(other_s, 3),
                "other_energy_j": round(other_j, 2),
                "deadline_met": ending.is_met,
            },
        )
