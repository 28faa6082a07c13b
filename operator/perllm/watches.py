"""What the operator watches on the API server, apart from tasks: nodes, pods, obstacles to pods, profiles, agents."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.annotated.pods import AnnotatedPods, SeenPod
from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.device_api import wait_for_devices
from perllm.cluster.devices import DeviceClaim, read_claim, read_slice
from perllm.cluster.informer import Informer
from perllm.cluster.obstacles import Obstacle, read_namespace, read_quota
from perllm.cluster.pod import Pod, read_pod
from perllm.config import Config
from perllm.controller.controller import Controller
from perllm.extender.unbound_pods import SchedulerAnswer, UnboundPods
from perllm.foundations import Foundations
from perllm.nodes.agents import NodeAgents, read_lease, read_offer
from perllm.nodes.devices import NodeDevices
from perllm.nodes.profile_parts import ProfileParts
from perllm.nodes.profile_store import ProfileStore
from perllm.nodes.serving_display import ServingDisplay
from perllm.nodes.upkeep import NodeUpkeep
from perllm.placement.fleet import Fleet

DEVICES_PATIENCE_S = 20.0
"""Devices and claims that cannot be listed within this time are taken into account once they can."""


class Watches:
    """The informers of the operator.

    Args:
        base: what they are built on.
        controller: receives pods and obstacles.
        annotated: receives the pods that belong to no task.
        upkeep: receives nodes.
        profiles: is notified of profiles that were deleted.
        parts: shows in profiles what nodes serve.

    Attributes:
        nodes: the informer of nodes.
        pods: those of pods, one per namespace unless there is one for all.
        annotated: those of pods that belong to no task; none if these are not placed.
        obstacles: those of quotas and namespaces.
        profiles: that of profiles.
        devices: the watch of devices and claims; None if devices are no slots.
        agents: the watch of agents and model servers; None if there can be no agents.
    """

    def __init__(
        self,
        base: Foundations,
        controller: Controller,
        annotated: AnnotatedPods,
        *,
        upkeep: NodeUpkeep,
        profiles: ProfileStore,
        parts: ProfileParts,
    ) -> None:
        config = base.config
        self._outages = base.outages
        self._store = profiles
        self._prefix = names.profile_prefix(config.instance)
        self._display = ServingDisplay(
            partial(parts.put, "serving"), is_member=base.parts.fleet.nodes.__contains__, now_s=base.now_s
        )
        self.nodes = base.build_informer("node", "/api/v1/nodes", upkeep.read, upkeep.on_node)
        self.devices = DeviceWatch(base, controller, annotated, upkeep) if config.nodes.devices else None
        self._unbound = UnboundPods(base.unix_now)
        for answer in SchedulerAnswer:
            base.metrics.queue.unbound.labels(answer).set_function(partial(self._unbound.count, answer))
        self._pass_on_pod = controller.on_pod if self.devices is None else self.devices.on_pod
        self.pods = [
            base.build_informer("pod", path, read_pod, self._on_pod, labelSelector=names.TASK_LABEL)
            for path in find_pod_paths(config)
        ]
        self._pass_on_annotated = annotated.on_pod if self.devices is None else self.devices.on_annotated_pod
        self.annotated = _build_annotated(base, annotated.read, self._on_annotated_pod)
        self.obstacles = _build_obstacles(base, controller)
        self.profiles = base.build_informer(
            "profile",
            names.node_profiles_path(),
            lambda item: str(item["metadata"]["name"]),
            self._on_profile,
            metadata_only=True,
            labelSelector=names.select_instance(config.instance),
        )
        self.agents = AgentWatch(base, controller, self._display) if config.agents.lease_namespace else None

    @property
    def all_pods(self) -> list[Informer[Any]]:
        """All informers of pods."""
        return [*self.pods, *self.annotated]

    @property
    def sees_pods(self) -> bool:
        """Whether the pods of tasks can be watched at the moment."""
        return not any(pods.topic in self._outages for pods in self.pods)

    def has_pods(self, namespace: str) -> bool:
        """Whether the pods of the tasks of a namespace were listed."""
        paths = names.pods_path(namespace), names.pods_path()
        return any(pods.path in paths and pods.synced.is_set() for pods in self.pods)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        self._unbound.note(old, new)
        self._pass_on_pod(old, new)

    def _on_annotated_pod(self, old: SeenPod | None, new: SeenPod | None) -> None:
        self._unbound.note(None if old is None else old.pod, None if new is None else new.pod)
        self._pass_on_annotated(old, new)

    def _on_profile(self, old: str | None, new: str | None) -> None:
        if old is not None and new is None:
            self._store.note_missing(old)
            self._display.forget(old.removeprefix(self._prefix))


class DeviceWatch:
    """The informers of devices, and of the claims by which pods have them.

    Args:
        base: what they are built on.
        controller: receives what claims ask for, and pods.
        annotated: receives the pods that belong to no task.
        upkeep: receives the devices of nodes.

    Attributes:
        known: set once all of them have been listed, or if the cluster does not serve them.
    """

    def __init__(self, base: Foundations, controller: Controller, annotated: AnnotatedPods, upkeep: NodeUpkeep) -> None:
        self.known = asyncio.Event()
        self._client = base.client
        self._controller = controller
        self._annotated = annotated
        self._devices = NodeDevices(upkeep.put_devices, base.scheduler.put_foreign)
        read = partial(read_slice, selections=base.config.nodes.to_labels().devices)
        read_template = partial(read_claim, is_template=True)
        self._informers: list[Informer[Any]] = [
            base.build_informer("resource slice", names.SLICES_PATH, read, self._devices.on_slice),
            base.build_informer("claim template", names.CLAIM_TEMPLATES_PATH, read_template, controller.on_claim),
            base.build_informer("claim", names.CLAIMS_PATH, read_claim, self._on_claim),
        ]

    async def run(self) -> None:
        """Watch until cancelled."""
        await wait_for_devices(self._client, self.known.set)
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            for informer in self._informers:
                await informer.synced.wait()
            self.known.set()

    async def wait_until_known(self) -> None:
        """Return once devices and claims are known, or it takes too long: then the cluster is served without."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEVICES_PATIENCE_S):
                await self.known.wait()

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """Handle a pod of a task: what it has is known before its end frees its slots."""
        self._devices.on_pod(old, new)
        self._controller.on_pod(old, new)

    def on_annotated_pod(self, old: SeenPod | None, new: SeenPod | None) -> None:
        """Handle a pod of another owner in the same way; one whose annotations were never valid counts nowhere."""
        counts = isinstance(new, AnnotatedPod) or (new is not None and self._annotated.is_in_flight(new.pod.uid))
        self._devices.on_pod(None if old is None else old.pod, new.pod if new is not None and counts else None)
        self._annotated.on_pod(old, new)

    def _on_claim(self, old: DeviceClaim | None, new: DeviceClaim | None) -> None:
        self._devices.on_claim(old, new)
        self._controller.on_claim(old, new)


class AgentWatch:
    """The informers of model servers and of the Leases of agents.

    Args:
        base: what they are built on.
        controller: loses the requests of agents that are gone.
        display: shows what nodes serve.

    Attributes:
        offers: the informer of model servers.
        leases: that of Leases.
    """

    def __init__(self, base: Foundations, controller: Controller, display: ServingDisplay) -> None:
        self._agents = NodeAgents(
            base.scheduler,
            controller.lose_runs,
            show=display.show,
            can_see=lambda: self.leases.topic not in base.outages,
            is_ready=partial(_is_ready, base.parts.fleet),
            now_s=base.now_s,
            unix_now=base.unix_now,
        )
        for is_alive in (True, False):
            count = partial(self._agents.count, is_alive=is_alive)
            base.metrics.fleet.agents.labels(str(is_alive).lower()).set_function(count)
        path = names.leases_path(base.config.agents.lease_namespace)
        self.offers = base.build_informer("model server", names.node_servers_path(), read_offer, self._agents.on_offer)
        self.leases = base.build_informer("lease", path, read_lease, self._agents.on_lease)

    async def run(self) -> None:
        """Examine the Leases until cancelled."""
        await self._agents.run()

    async def wait_until_synced(self) -> None:
        """Return once the first lists have been processed."""
        await self.offers.synced.wait()
        await self.leases.synced.wait()


def _is_ready(fleet: Fleet, name: str) -> bool:
    node = fleet.nodes.get(name)
    return node is not None and node.answers


def find_pod_paths(config: Config) -> list[str]:
    """Return the API paths of the pods that the operator may read."""
    return [names.pods_path(namespace) for namespace in config.namespaces or (None,)]


def _build_annotated(
    base: Foundations,
    read: Callable[[Object], SeenPod | None],
    on_pod: Callable[[SeenPod | None, SeenPod | None], None],
) -> list[Informer[SeenPod]]:
    config = base.config
    if not config.annotated_pods.enabled:
        return []
    return [
        base.build_informer(
            "annotated pod",
            path,
            read,
            on_pod,
            fieldSelector=f"spec.schedulerName={config.scheduler_name}",
            labelSelector=f"!{names.TASK_LABEL}",
        )
        for path in find_pod_paths(config)
    ]


def _build_obstacles(base: Foundations, controller: Controller) -> list[Informer[Obstacle]]:
    namespaces = base.config.namespaces
    obstacles = [
        base.build_informer("quota", names.quotas_path(namespace), read_quota, controller.on_quota)
        for namespace in namespaces or (None,)
    ]
    if not namespaces:
        path = "/api/v1/namespaces"
        obstacles.append(base.build_informer("namespace", path, read_namespace, controller.on_namespace))
    return obstacles
