"""Assembles a scheduler from its settings, for the operator and for the replay of a recording."""

from collections.abc import Callable
from random import Random

from pydantic import BaseModel, ConfigDict

from perllm.api.task import Tier
from perllm.config import Config
from perllm.learning.learner import Learner
from perllm.learning.outcome import ImplausibleFigure
from perllm.placement.circuits import Circuits
from perllm.placement.fleet import Fleet
from perllm.placement.ledger import Ledger
from perllm.placement.rehearsal import OtherScheduler
from perllm.scheduling.admission import Admission
from perllm.scheduling.journal import Inputs
from perllm.scheduling.loop import DispatchRules
from perllm.scheduling.order import Order
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.scheduling.shares import Shares
from perllm.settings.policy import AdmissionSettings, PolicySettings


class SchedulerSettings(BaseModel):
    """All settings that decisions depend on; the first line of a journal holds them.

    Attributes:
        policy: the policy.
        admission: when tasks are rejected.
        weights: of namespaces.
        transmission_j_per_bit: energy of moving one bit to a node, by tier.
        seed: of the jitter of pauses.
        other: whose choices are rehearsed.
    """

    model_config = ConfigDict(frozen=True)

    policy: PolicySettings
    admission: AdmissionSettings
    weights: dict[str, float]
    transmission_j_per_bit: dict[Tier, float]
    seed: int
    other: OtherScheduler = OtherScheduler.NONE


def read_settings(config: Config, seed: int) -> SchedulerSettings:
    """Return the settings of an operator's scheduler."""
    return SchedulerSettings(
        policy=config.policy,
        admission=config.admission,
        weights=config.fairness.weights,
        transmission_j_per_bit={tier: config.nodes.transmission_microjoule_per_bit[tier] * 1e-6 for tier in Tier},
        seed=seed,
        other=OtherScheduler.PERLLM if config.mode == "shadow" else OtherScheduler.KUBE_SCHEDULER,
    )


def build_admission(settings: AdmissionSettings) -> Admission:
    """Return the admission with these settings."""
    return Admission(settings.min_hit_chance, settings.probe_share)


def build_scheduler(
    settings: SchedulerSettings,
    inputs: Inputs,
    *,
    count_discarded: Callable[[ImplausibleFigure], None] | None = None,
    metrics_age_s: Callable[[str], float | None] = lambda _: None,
) -> tuple[Scheduler, Parts]:
    """Return a scheduler without nodes and tasks, and its parts for code that only reads them.

    Args:
        settings: of the scheduler.
        inputs: its clock and its journal.
        count_discarded: called with the reason for every outcome that is discarded.
        metrics_age_s: returns the age of a node's metrics, None when there are none.
    """
    rng, policy = Random(settings.seed), settings.policy.build()
    parts = Parts(policy, Learner(policy, count_discarded), Fleet(), Ledger(), Circuits(rng))
    inputs.begin(settings.model_dump(mode="json"))
    scheduler = Scheduler(
        parts,
        inputs=inputs,
        rules=DispatchRules(Order.URGENCY, build_admission(settings.admission)),
        shares=Shares(settings.weights),
        transmission_j_per_bit=settings.transmission_j_per_bit,
        rng=rng,
        metrics_age_s=metrics_age_s,
        other=settings.other,
    )
    return scheduler, parts
