"""Settings for the life of tasks, as read from the operator's configuration."""

from dataclasses import dataclass, field

from perllm.api import names
from perllm.cluster.devices import DeviceSelection
from perllm.cluster.pod_ends import PodPatience
from perllm.config import Config
from perllm.controller.history import HistoryLimits
from perllm.scheduling.admission import Admission
from perllm.scheduling.assembly import build_admission
from perllm.settings.tasks import RunnerSettings


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Settings for the life of tasks.

    Attributes:
        scheduler_name: scheduler of the pods.
        gpu_resources: resources that slots are units of.
        devices: those that are slots.
        patience: how long pods may take.
        admission: explains rejections.
        history: how long finished tasks are kept.
        runner: what runner pods have in common, and whether there are any.
        named_nodes: nodes that a pod names at most; 0 for pods that may be placed on any.
        bill_label: label of tasks by whose values the bill is divided; empty for none.
    """

    scheduler_name: str = names.SCHEDULER_NAME
    gpu_resources: tuple[str, ...] = names.GPU_RESOURCES
    devices: tuple[DeviceSelection, ...] = ()
    patience: PodPatience = field(default_factory=PodPatience)
    admission: Admission = field(default_factory=Admission)
    history: HistoryLimits = field(default_factory=HistoryLimits)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    named_nodes: int = 0
    bill_label: str = ""


def read_controller_settings(config: Config) -> ControllerSettings:
    """Return the settings of an operator's controller."""
    return ControllerSettings(
        scheduler_name=config.scheduler_name,
        gpu_resources=config.nodes.resources,
        devices=config.nodes.selections,
        patience=PodPatience(start_s=config.start_timeout_s, away_s=config.away_patience_s),
        admission=build_admission(config.admission),
        history=HistoryLimits(config.tasks.default_ttl_s, config.tasks.max_history),
        runner=config.runner,
        named_nodes=config.pods.named_nodes,
        bill_label=config.bill.label,
    )
