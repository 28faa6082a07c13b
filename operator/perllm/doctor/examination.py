"""Reads the data that the checks need, and runs them. A failure to read becomes a finding, and the rest continues."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from perllm.api import names
from perllm.cluster.client import ApiError, ApiUnreachableError, Client, Object
from perllm.cluster.informer import keep_all
from perllm.config import Config
from perllm.doctor import clocks, cluster, nodes, pods, rights, tasks, telemetry
from perllm.doctor.configuration import check_configuration
from perllm.doctor.finding import Finding, fail, ok, warn
from perllm.doctor.rights import Access, Account, OutsideUser
from perllm.kueue.workload import API_VERSION
from perllm.telemetry.feeds import Feed, list_feeds
from perllm.telemetry.queries import select_window
from perllm.telemetry.series import Series
from perllm.telemetry.source import MetricSource, TelemetryError, TelemetryUnreachableError

PAGE_SIZE = "500"


@dataclass(frozen=True, slots=True)
class Examination:
    """An examination of a cluster.

    Attributes:
        client: the API server.
        server: its address, for the report.
        source: Prometheus.
        config: configuration of the operator.
        namespace: namespace in which PerLLM is installed.
        account: account of the operator; None if the examination itself runs with that account.
        unix_now: Unix time in seconds.
        has_prometheus: whether the cluster should have one.
    """

    client: Client
    server: str
    source: MetricSource
    config: Config
    namespace: str
    account: Account | OutsideUser | None
    unix_now: Callable[[], float]
    has_prometheus: bool = True

    async def run(self) -> AsyncIterator[Finding]:
        """Yield the findings, one check after the other."""
        for finding in check_configuration(self.config):
            yield finding
        try:
            yield cluster.check_version(await self.client.get("/version"), self.server)
        except ApiError as error:
            yield fail(cluster.API_SERVER, str(error), "check the kubeconfig, or the network policy of the pod")
            return
        examinations = (
            (cluster.RESOURCES, self._examine_resources()),
            (pods.PODS, self._examine_pods()),
            (rights.RIGHTS, self._examine_rights()),
            (pods.LEASE, self._examine_lease()),
            (nodes.NODES, self._examine_nodes()),
            (telemetry.CHECK, self._examine_telemetry()),
            (tasks.TASKS, self._examine_tasks()),
            (tasks.TASK_PODS, self._examine_task_pods()),
            (tasks.ANNOTATED_PODS, self._examine_annotated_pods()),
        )
        for check, findings in examinations:
            try:
                async for finding in findings:
                    yield finding
            except ApiError as error:
                yield _explain(check, error)

    async def _examine_resources(self) -> AsyncIterator[Finding]:
        for finding in cluster.check_resources(await self._read(f"/openapi/v3/apis/{names.API_VERSION}")):
            yield finding
        if self.config.kueue.enabled:
            yield cluster.check_kueue(await self._read(f"/openapi/v3/apis/{API_VERSION}"))

    async def _examine_pods(self) -> AsyncIterator[Finding]:
        if isinstance(self.account, OutsideUser):
            yield ok(pods.PODS, f"none, the operator runs outside the cluster as user {self.account.user}")
            return
        found = await self._list(names.pods_path(self.namespace))
        for finding in pods.check_pods(found, self.namespace, self.config.mode):
            yield finding

    async def _examine_rights(self) -> AsyncIterator[Finding]:
        account = self.account and await self._find_account(self.account)
        needed = rights.list_needed(self.config, self.namespace)
        allowed = await asyncio.gather(*(self._may(access, account) for access in needed))
        who = account.user if account else "this account"
        yield rights.check_rights(dict(zip(needed, allowed, strict=True)), who)

    async def _examine_lease(self) -> AsyncIterator[Finding]:
        name = self.config.leader_lease
        if name:
            lease = await self._read(names.lease_path(self.namespace, name))
            yield pods.check_lease(lease, f"{self.namespace}/{name}", self.unix_now())

    async def _examine_nodes(self) -> AsyncIterator[Finding]:
        slices = await self._list_slices()
        for finding in nodes.check_nodes(await self._list("/api/v1/nodes"), self.config.nodes, slices):
            yield finding
        own = names.select_instance(self.config.instance)
        for finding in nodes.check_circuits(await self._list(names.node_profiles_path(), labelSelector=own)):
            yield finding

    async def _examine_telemetry(self) -> AsyncIterator[Finding]:
        if not self.has_prometheus:
            yield ok(telemetry.CHECK, "none, as stated: the energy of tasks is unknown")
            return
        items = await self._list("/api/v1/nodes")
        slices = await self._list_slices()
        fleet = {node.name for node in nodes.find_fleet(items, self.config.nodes, slices or ())}
        known = telemetry.Nodes(nodes.find_addresses(items), fleet)
        answers, now_s = await self._ask_prometheus(), self.unix_now()
        settings, is_inside = self.config.telemetry, self.account is None
        for finding in telemetry.check_telemetry(answers, known, settings, now_s, is_inside=is_inside):
            yield finding

    async def _examine_tasks(self) -> AsyncIterator[Finding]:
        if self.config.mode == "shadow":
            yield ok(tasks.TASKS, "not served in shadow mode")
            return
        found = await self._list_all(map(names.tasks_path, self.config.namespaces or (None,)), tasks.shorten_task)
        for finding in tasks.check_tasks(found, self.unix_now()):
            yield finding

    async def _examine_task_pods(self) -> AsyncIterator[Finding]:
        paths = map(names.pods_path, self.config.namespaces or (None,))
        node_clocks = clocks.NodeClocks()

        def read(pod: Object) -> Object:
            node_clocks.see(pod)
            return tasks.shorten_pod(pod)

        found = await self._list_all(paths, read, labelSelector=names.TASK_LABEL)
        for finding in self._check_pods(tasks.TASK_PODS, found):
            yield finding
        yield clocks.check_clocks(node_clocks)

    async def _examine_annotated_pods(self) -> AsyncIterator[Finding]:
        paths = map(names.pods_path, self.config.namespaces or (None,))
        own = f"spec.schedulerName={self.config.scheduler_name}"
        others = f"!{names.TASK_LABEL}"
        found = await self._list_all(paths, tasks.shorten_pod, fieldSelector=own, labelSelector=others)
        for finding in self._check_pods(tasks.ANNOTATED_PODS, found):
            yield finding

    def _check_pods(self, check: str, found: list[Object]) -> Iterator[Finding]:
        return tasks.check_scheduled_pods(check, found, self.config.scheduler_name, self.unix_now())

    async def _find_account(self, default: Account | OutsideUser) -> Account | OutsideUser:
        """Return the account that PerLLM's pods run as, or the default if there are none yet."""
        if isinstance(default, OutsideUser):
            return default
        own = pods.find_own(await self._list(names.pods_path(self.namespace)), self.config.mode)
        return Account(self.namespace, own[0]["spec"]["serviceAccountName"]) if own else default

    async def _may(self, access: Access, account: Account | OutsideUser | None) -> bool:
        answer = await self.client.post(*rights.build_review(access, account))
        return bool((answer.get("status") or {}).get("allowed"))

    async def _ask_prometheus(self) -> telemetry.Answers:
        series: dict[Feed, tuple[Series, ...]] = {}
        errors: dict[Feed, str] = {}
        settings = self.config.telemetry
        for feed in list_feeds(settings):
            query = select_window(feed.query, settings.history_s, settings.matchers)
            try:
                series[feed] = tuple(await self.source.query(query))
            except TelemetryUnreachableError as error:
                return telemetry.Answers({}, {}, unreachable=str(error))
            except TelemetryError as error:
                errors[feed] = str(error)
        return telemetry.Answers(series, errors)

    async def _read(self, path: str) -> dict[str, Any] | None:
        """Return the object at a path; None if there is none."""
        try:
            return await self.client.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _list_slices(self) -> list[Object] | None:
        """Return all slices of devices; None if the cluster does not serve them.

        There are none if they may not be read, which matters only if devices are configured.
        """
        if await self._read(f"/apis/{names.DEVICE_API}") is None:
            return None
        try:
            return await self._list(names.SLICES_PATH)
        except ApiError as error:
            if error.status == 403:
                return []
            raise

    async def _list_all(self, paths: Iterable[str], read: Callable[[Object], Object], **query: str) -> list[Object]:
        return [item for path in paths for item in await self._list(path, read, **query)]

    async def _list(self, path: str, read: Callable[[Object], Object] = keep_all, **query: str) -> list[Object]:
        """Return all objects of a collection; none if the collection does not exist, which another check reports.

        Of each it keeps what `read` returns: there may be a hundred thousand, more than the memory of a pod has room
        for.
        """
        items: list[Object] = []
        token = ""
        while True:
            page = await self._read_page(path, {"limit": PAGE_SIZE, "continue": token, **query})
            items += map(read, page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return items

    async def _read_page(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        try:
            return await self.client.get(path, **query)
        except ApiError as error:
            if error.status == 404:
                return {"items": [], "metadata": {}}
            raise


def _explain(check: str, error: ApiError) -> Finding:
    if error.status == 403:
        return warn(check, f"not checked: {error.message}", "run the doctor as an administrator")
    if isinstance(error, ApiUnreachableError):
        return fail(check, str(error), "the API server stopped answering: try again")
    return fail(check, str(error), "check the log of the API server")
