"""The parts of an operator, connected to one another; `operator.py` starts and stops them."""

import asyncio
import socket
import time
from functools import partial
from pathlib import Path
from typing import IO

import requests
from prometheus_client import CollectorRegistry

from perllm.annotated.assembly import build_annotated_pods
from perllm.api import names
from perllm.cluster.client import Client, Object
from perllm.cluster.credentials import Credentials
from perllm.cluster.events import EventRecorder
from perllm.cluster.leadership import Leadership, find_namespace
from perllm.cluster.starts import StartRecord
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.assembly import ControllerContext, TaskControl
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.lifecycle import CATCH_UP_S
from perllm.controller.settings import read_controller_settings
from perllm.controller.suspensions import Suspensions
from perllm.controller.watch import TaskWatch
from perllm.costs.metrics import CostMetrics
from perllm.costs.outlook import TariffBook
from perllm.costs.service import EnergyCosts, charge_nothing
from perllm.energy.accounts import AccountMetrics, EnergyAccounts
from perllm.energy.bill import BillMetrics
from perllm.energy.settlement import Settlement
from perllm.extender.extender import Extender
from perllm.extender.protocol import Unplaceable
from perllm.extender.retries import Retries
from perllm.foundations import Foundations, lay_foundations
from perllm.kueue.watch import KueueWatch
from perllm.nodes.profile_parts import ProfileParts
from perllm.placement.request import PlacementRequest
from perllm.telemetry.source import PrometheusSource
from perllm.watches import Watches, find_pod_paths


class Wiring:
    """The parts of an operator, none of which runs yet.

    Each is built from those above it. A part that has to reach one below it is given a callback.

    Args:
        config: of the operator.
        client: the API server.
        credentials: with which Kopf watches tasks.
        registry: of all metrics.
        journal: receives everything that decisions depend on; None to record nothing.
        starts: file in which starts are recorded; None for nowhere.

    Attributes:
        base: what every operator has.
        profiles: the store of learned state.
        cost_source: answers the queries of tariffs; None if there are no tariffs.
        costs: what energy costs; None if there are no tariffs.
        accounts: divide the energy of nodes.
        kueue: the watch of Kueue; None if its queues are ignored.
        control: the controller of tasks and what runs next to it.
        retries: retries of pods that the extender rejected.
        upkeep: keeps nodes up to date.
        leadership: follows which replica is active; None if there is no Lease.
        watches: the informers.
        tasks: the watch of tasks.
        extender: answers kube-scheduler.
    """

    def __init__(
        self,
        config: Config,
        client: Client,
        credentials: Credentials,
        registry: CollectorRegistry,
        *,
        journal: IO[bytes] | None = None,
        starts: Path | None = None,
    ) -> None:
        wake = asyncio.Event()
        base = self.base = lay_foundations(
            config, client, registry, now_s=time.monotonic, unix_now=time.time, journal=journal, wake=wake.set
        )
        self.profiles = base.build_profiles()
        self._profile_parts = ProfileParts(
            client,
            base.writes,
            node_of=base.parts.fleet.nodes.get,
            create_profile=self.profiles.create,
            prefix=names.profile_prefix(config.instance),
        )
        self.cost_source = PrometheusSource(config.telemetry, requests.Session()) if config.costs.has_tariffs else None
        self.costs = None if self.cost_source is None else self._build_costs(self.cost_source)
        settlement, bill = base.build_settlement(), BillMetrics(registry)
        self.accounts = self._build_accounts(settlement, bill)
        self.kueue = self._build_kueue_watch()
        events = EventRecorder(client, base.writes, instance=socket.gethostname(), unix_now=base.unix_now)
        announcer = Announcer(events, base.metrics, EndMetrics(registry), bill)
        context = self._build_context(settlement, announcer, wake)
        control = self.control = TaskControl(base.scheduler, base.parts, context, read_controller_settings(config))
        self.retries = self._build_retries()
        self._annotated = build_annotated_pods(
            base.scheduler, base.parts, context, control, events=events, bill=bill, retries=self.retries, config=config
        )
        self.upkeep = base.build_upkeep(control.node_health, control.clocks.forget, self._annotated.count_late)
        self.leadership = _follow_lease(base, starts)
        self.watches = Watches(
            base,
            control.controller,
            self._annotated,
            upkeep=self.upkeep,
            profiles=self.profiles,
            parts=self._profile_parts,
        )
        self.tasks = self._build_task_watch(credentials)
        self.extender = self._build_extender()

    def _build_costs(self, source: PrometheusSource) -> EnergyCosts:
        base = self.base
        return EnergyCosts(
            TariffBook.build(base.config.costs),
            source,
            lambda: base.parts.fleet.nodes,
            base.scheduler.put_costs,
            metrics=CostMetrics(base.registry),
            guard=base.guard,
            unix_now=base.unix_now,
        )

    def _build_accounts(self, settlement: Settlement, bill: BillMetrics) -> EnergyAccounts:
        base = self.base
        return EnergyAccounts(
            base.telemetry.energy,
            settlement,
            lambda: base.parts.fleet.nodes,
            AccountMetrics(base.registry),
            bill,
            guard=base.guard,
            window_s=base.config.telemetry.history_s,
            unix_now=base.unix_now,
        )

    def _build_kueue_watch(self) -> KueueWatch | None:
        base = self.base
        if not base.config.kueue.enabled:
            return None
        return KueueWatch(
            base.client,
            base.writes,
            base.build_informer,
            namespaces=base.config.namespaces,
            on_change=lambda key, uid: self.control.controller.on_admission(key, uid),
            unix_now=base.unix_now,
        )

    def _build_context(self, settlement: Settlement, announcer: Announcer, wake: asyncio.Event) -> ControllerContext:
        base = self.base
        workloads = None if self.kueue is None else self.kueue.workloads
        return ControllerContext(
            client=base.client,
            writes=base.writes,
            settlement=settlement,
            announcer=announcer,
            metrics=base.metrics,
            guard=base.guard,
            now_s=base.now_s,
            unix_now=base.unix_now,
            show_circuit=partial(self._profile_parts.put, "circuit"),
            wake=wake,
            has_tasks=lambda namespace: self.tasks.knows(namespace),
            has_pods=lambda namespace: self.watches.has_pods(namespace),
            sees_pods=lambda: self.watches.sees_pods,
            is_current=lambda namespace: self.tasks.is_current(namespace, for_s=CATCH_UP_S),
            pod_paths=find_pod_paths(base.config),
            is_annotated=lambda uid: self._annotated.is_in_flight(uid),
            charge=charge_nothing if self.costs is None else self.costs.charge,
            suspensions=Suspensions(workloads, base.config.kueue.served_resource),
        )

    def _build_retries(self) -> Retries:
        base = self.base
        return Retries(
            base.client,
            base.writes,
            has_room=lambda request: base.scheduler.consider(request).node is not None,
            guard=base.guard,
            now_s=base.now_s,
            unix_now=base.unix_now,
        )

    def _build_task_watch(self, credentials: Credentials) -> TaskWatch:
        base, controller = self.base, self.control.controller
        return TaskWatch(
            credentials,
            lambda item, deleted: controller.on_task(item, deleted=deleted),
            controller.on_list,
            base.metrics,
            base.outages,
            base.rng,
            is_known=controller.is_known,
            namespaces=base.config.namespaces,
        )

    def _build_extender(self) -> Extender:
        base, decisions = self.base, self.control.decisions
        return Extender(
            base.scheduler,
            base.parts.ledger,
            base.client,
            request_of=self._find_request,
            retries=self.retries,
            note_bound=decisions.note_bound,
            note_denied=decisions.forget,
        )

    def _find_request(self, pod: Object) -> PlacementRequest | Unplaceable | None:
        """Return what a pod asks of placement: a task's pod, or an annotated one."""
        request = self.control.controller.request_of(pod)
        return self._annotated.request_of(pod) if request is None and self.watches.annotated else request


def _follow_lease(base: Foundations, starts: Path | None) -> Leadership | None:
    if not base.config.leader_lease:
        return None
    return Leadership(
        base.client,
        find_namespace(),
        base.config.leader_lease,
        hostname=socket.gethostname(),
        now=base.now_s,
        outages=base.outages,
        starts=StartRecord(starts, base.unix_now) if starts is not None else None,
    )
