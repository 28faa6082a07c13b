"""What each payer's tasks took: energy, tokens, deadlines.

A payer is a namespace, or a value of the label that the configuration chooses; each of the two divides all tasks. The
label ``namespace`` is left to Prometheus, which uses it for the namespace of the operator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from perllm.api.task_status import EnergyQuality, Observation
from perllm.label_values import LabelValues

MAX_PAYERS = 100
"""Namespaces, and values of the label, that have counters of their own; the first ones that are seen."""

BY_NAMESPACE = "namespace"
BY_LABEL = "label"
NO_LABEL = "none"

INFERENCE = "inference"
TRANSMISSION = "transmission"
_KEYS = ("by", "payer")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose task it is: its namespace, and its value of the label; empty without one."""

    namespace: str
    label: str = ""


class BillMetrics:
    """The counters of all payers, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.joules = Counter(
            "perllm_bill_joules",
            "Energy of a payer's tasks: inference, measured on nodes, also of failed attempts; transmission, as "
            "estimated for tasks that succeeded.",
            [*_KEYS, "part"],
            registry=registry,
        )
        self.tokens = Counter(
            "perllm_bill_tokens", "Tokens of a payer's tasks, by kind.", [*_KEYS, "kind"], registry=registry
        )
        self.tasks = Counter(
            "perllm_bill_tasks", "A payer's tasks that ended, by phase.", [*_KEYS, "phase"], registry=registry
        )
        self.deadlines = Counter(
            "perllm_bill_deadlines",
            "A payer's tasks that ended, by whether they met the deadline.",
            [*_KEYS, "met"],
            registry=registry,
        )
        self.measurements = Counter(
            "perllm_bill_measurements",
            "Energy measurements of a payer's tasks, by quality.",
            [*_KEYS, "quality"],
            registry=registry,
        )
        self._namespaces, self._labels = LabelValues(MAX_PAYERS), LabelValues(MAX_PAYERS)

    def charge(self, owner: Owner, energy_j: float) -> None:
        """Charge a share of a node's energy."""
        for payer in self._payers(owner):
            self.joules.labels(*payer, INFERENCE).inc(max(energy_j, 0.0))

    def note_measurement(self, owner: Owner, quality: EnergyQuality, transmission_j: float) -> None:
        """Count a task whose energy is measured, or known to be missing; charge its transmission."""
        for payer in self._payers(owner):
            self.measurements.labels(*payer, quality.value).inc()
            self.joules.labels(*payer, TRANSMISSION).inc(max(transmission_j, 0.0))

    def note_end(self, owner: Owner, phase: str, is_met: bool | None, observed: Observation | None) -> None:
        """Count a task that ended; `is_met` is None if it was deleted before its end."""
        tokens = {"prompt": observed.prompt_tokens, "output": observed.tokens} if observed else {}
        for payer in self._payers(owner):
            self.tasks.labels(*payer, phase).inc()
            if is_met is not None:
                self.deadlines.labels(*payer, str(is_met).lower()).inc()
            for kind, count in tokens.items():
                self.tokens.labels(*payer, kind).inc(count or 0)

    def _payers(self, owner: Owner) -> Iterator[tuple[str, str]]:
        yield BY_NAMESPACE, self._namespaces.bound(owner.namespace)
        yield BY_LABEL, self._labels.bound(owner.label or NO_LABEL)
