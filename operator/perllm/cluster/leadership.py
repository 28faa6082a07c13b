"""Which of several replicas works: the one whose kube-scheduler holds the Lease that all of them contend for.

kube-scheduler's own election is the only one; the operator beside it follows. Both run in one pod, so they share its
host name, with which kube-scheduler's identity begins.

An operator works only while it sees the Lease renewed by its own pod. Clocks of machines are never compared: a renewal
that a look at the Lease shows is counted from the look before, after which it must have happened, and for less time
than the other replicas wait before they take over.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.outages import Outages
from perllm.guard import describe
from perllm.text import clean_line

POLL_S = 1.0
TIMEOUT_S = 2.0
MIN_TIMEOUT_S = 0.1
DEFAULT_DURATION_S = 15.0
TRUSTED_SHARE = 0.8
"""Of the lease's duration, for which a renewal counts. Another replica waits for all of it."""

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class LeadershipError(Exception):
    """This replica may not work, or not any more."""


class Tenure:
    """What the Lease says, judged by one's own clock.

    Args:
        hostname: of the pod.

    Attributes:
        holder: who holds the Lease; empty when nobody does.
    """

    def __init__(self, hostname: str) -> None:
        self.holder = ""
        self._own = f"{hostname}_"
        self._seen: tuple[object, ...] | None = None
        self._looked_s = 0.0
        self._renewed_s: float | None = None
        self._trusted_s = DEFAULT_DURATION_S * TRUSTED_SHARE

    def note(self, lease: Object | None, now_s: float) -> None:
        """Take note of the Lease as it was asked for at `now_s`; None when there is none."""
        spec = (lease or {}).get("spec") or {}
        seen = (spec.get("holderIdentity") or "", spec.get("renewTime"), spec.get("leaseTransitions"))
        # What was written before the first look may be long ago.
        if self._seen is not None and seen != self._seen:
            self._renewed_s = self._looked_s
        self._seen, self._looked_s, self.holder = seen, now_s, clean_line(seen[0])
        self._trusted_s = float(spec.get("leaseDurationSeconds") or DEFAULT_DURATION_S) * TRUSTED_SHARE

    def left_s(self, now_s: float) -> float:
        """Return for how long the last renewal by this pod still counts; at most 0 if there was none."""
        if self._renewed_s is None or not self.holder.startswith(self._own):
            return 0.0
        return self._renewed_s + self._trusted_s - now_s


class Leadership:
    """Follows a Lease.

    Attributes:
        won: set once this replica is the one that works.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        lease: str,
        *,
        hostname: str,
        now: Callable[[], float],
        outages: Outages,
    ) -> None:
        self.won = asyncio.Event()
        self._client = client
        self._outages = outages
        self._name = f"{namespace}/{lease}"
        self._path = names.lease_path(namespace, lease)
        self._now = now
        self._tenure = Tenure(hostname)

    @property
    def holder(self) -> str:
        """Who holds the Lease; empty when nobody does."""
        return self._tenure.holder

    async def run(self) -> None:
        """Follow the Lease until it was won and lost again.

        Raises:
            LeadershipError: it was lost; another replica may work from now on.
        """
        while True:
            await self._look()
            if self._tenure.left_s(self._now()) > 0:
                self.won.set()
            elif self.won.is_set():
                successor = self.holder or "nobody yet"
                raise LeadershipError(
                    f"lost the lease {self._name} to {successor}: this replica ends, and stands by when started again"
                )
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        """Read the Lease and take note of it; one that cannot be read changes nothing."""
        topic, asked_s = f"reading of the lease {self._name}", self._now()
        # Whoever works must not wait for an answer longer than his turn lasts.
        left_s = max(self._tenure.left_s(asked_s), MIN_TIMEOUT_S) if self.won.is_set() else TIMEOUT_S
        try:
            async with asyncio.timeout(min(left_s, TIMEOUT_S)):
                self._tenure.note(await self._read(), asked_s)
        except TimeoutError:
            self._outages.failed(topic, "no answer in time", is_unanswered=True)
        except Exception as error:
            is_unanswered = isinstance(error, ApiError) and error.is_unanswered
            self._outages.failed(topic, describe(error), is_unanswered=is_unanswered)
        else:
            self._outages.worked(topic)

    async def _read(self) -> Object | None:
        """Return the Lease; None if there is none."""
        try:
            return await self._client.get(self._path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise


def find_namespace(file: Path = NAMESPACE_FILE) -> str:
    """Return the namespace that this process runs in.

    Raises:
        LeadershipError: neither the environment nor the service account tells it.
    """
    told = os.environ.get("POD_NAMESPACE")
    if told:
        return told
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise LeadershipError(
            "the namespace of leader_lease is not known: set POD_NAMESPACE to the namespace of the pod"
        ) from error
