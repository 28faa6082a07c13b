"""Which of several replicas is active: the one whose kube-scheduler holds the Lease.

The only election is that of kube-scheduler; the operator in the same pod follows it. Both share the host name of the
pod, and kube-scheduler's identity begins with it.

An operator is active only while it sees its own pod renew the Lease. Clocks of different machines are never compared. A
renewal counts from the poll before the one that showed it, since it must have happened after that, and it counts for
less time than the other replicas wait before they take over.

A healthy kube-scheduler keeps the Lease while the operator next to it crashes repeatedly. Such an operator gives
the Lease up: it writes a holder that does not exist. An empty holder would not do, since kube-scheduler then takes the
Lease back at its next renewal. This way it fails to renew, ends and is started again, and by then another replica has
waited for the Lease long enough. If there is none, the same pod acquires it again.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from perllm.api import names
from perllm.cluster.client import ApiError, Client, Object, PatchKind
from perllm.cluster.outages import Outages
from perllm.cluster.starts import StartRecord
from perllm.guard import describe
from perllm.text import clean_line

log = logging.getLogger(__name__)

POLL_S = 0.5
TIMEOUT_S = 2.0
MIN_TIMEOUT_S = 0.1
DEFAULT_DURATION_S = 15.0
TRUSTED_SHARE = 0.8
"""Share of the lease's duration for which a renewal counts. Other replicas wait for all of it."""

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class LeadershipError(Exception):
    """This replica may not be active, or no longer."""


class Tenure:
    """How long this pod may rely on the Lease, by its own clock.

    Args:
        hostname: host name of the pod.

    Attributes:
        holder: identity that holds the Lease; empty if there is none.
    """

    def __init__(self, hostname: str) -> None:
        self.holder = ""
        self._own = f"{hostname}_"
        self._seen: tuple[object, ...] | None = None
        self._polled_s = 0.0
        self._renewed_s: float | None = None
        self._trusted_s = DEFAULT_DURATION_S * TRUSTED_SHARE

    def observe(self, lease: Object | None, now_s: float) -> None:
        """Record the Lease as requested at `now_s`; None if there is none."""
        spec = (lease or {}).get("spec") or {}
        seen = (spec.get("holderIdentity") or "", spec.get("renewTime"), spec.get("leaseTransitions"))
        # The first poll does not show when the Lease was last renewed; that may be long ago.
        if self._seen is not None and seen != self._seen:
            self._renewed_s = self._polled_s
        self._seen, self._polled_s, self.holder = seen, now_s, clean_line(seen[0])
        self._trusted_s = float(spec.get("leaseDurationSeconds") or DEFAULT_DURATION_S) * TRUSTED_SHARE

    @property
    def is_own(self) -> bool:
        """Whether this pod held the Lease when it was last read."""
        return self.holder.startswith(self._own)

    def left_s(self, now_s: float) -> float:
        """Return how long the last renewal by this pod still counts; 0 or less if it does not, or there was none."""
        if self._renewed_s is None or not self.is_own:
            return 0.0
        return self._renewed_s + self._trusted_s - now_s


class Leadership:
    """Follows a Lease.

    Args:
        client: the API server.
        namespace: namespace of the Lease.
        lease: its name.
        hostname: host name of the pod.
        now: monotonic clock, in seconds.
        outages: records when the Lease cannot be read.
        starts: by which too many crashes are recognised; None to keep the Lease in any case.

    Attributes:
        won: set once this replica is active.
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
        starts: StartRecord | None = None,
    ) -> None:
        self.won = asyncio.Event()
        self._client = client
        self._outages = outages
        self._name = f"{namespace}/{lease}"
        self._path = names.lease_path(namespace, lease)
        self._now = now
        self._hostname = hostname
        self._tenure = Tenure(hostname)
        self._starts = starts

    @property
    def holder(self) -> str:
        """Identity that holds the Lease; empty if there is none."""
        return self._tenure.holder

    async def run(self) -> None:
        """Follow the Lease until this replica has acquired it and lost it again.

        Raises:
            LeadershipError: the Lease was lost, so another replica may be active.
        """
        is_counted = False
        while True:
            if await self._poll() and not is_counted:
                # Only an answer shows whether this is a start while the pod holds the Lease.
                is_counted = True
                if self._starts is not None and self._tenure.is_own and self._is_crashing(self._starts):
                    await self._give_up()
            if self._tenure.left_s(self._now()) > 0:
                self.won.set()
            elif self.won.is_set():
                holder = f"to {self.holder}" if self.holder else "and no other replica holds it yet"
                raise LeadershipError(f"lost the lease {self._name} {holder}: exiting, to be restarted as standby")
            await asyncio.sleep(POLL_S)

    def _is_crashing(self, starts: StartRecord) -> bool:
        try:
            return starts.add()
        except OSError as error:
            log.warning("repeated crashes are not recognised: %s", error)
            return False

    async def _give_up(self) -> None:
        """Write another holder, unless there is one already."""
        holder = "/spec/holderIdentity"
        change = [
            {"op": "test", "path": holder, "value": self.holder},
            {"op": "replace", "path": holder, "value": f"given up by {self._hostname}"},
        ]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._client.patch(self._path, change, kind=PatchKind.JSON)
        except (ApiError, TimeoutError) as error:
            log.warning("the lease %s cannot be given up: %s", self._name, describe(error))
        else:
            log.warning("gave up the lease %s, because the operator in this pod crashes repeatedly", self._name)

    async def _poll(self) -> bool:
        """Read the Lease and record it; a failure to read it changes nothing. Return whether it was read."""
        topic, asked_s = f"reading the lease {self._name}", self._now()
        # An active replica must not wait for an answer beyond the time that it may rely on the Lease.
        left_s = max(self._tenure.left_s(asked_s), MIN_TIMEOUT_S) if self.won.is_set() else TIMEOUT_S
        try:
            async with asyncio.timeout(min(left_s, TIMEOUT_S)):
                self._tenure.observe(await self._read(), asked_s)
        except TimeoutError:
            self._outages.failed(topic, "no answer in time", is_unanswered=True)
        except Exception as error:
            is_unanswered = isinstance(error, ApiError) and error.is_unanswered
            self._outages.failed(topic, describe(error), is_unanswered=is_unanswered)
        else:
            self._outages.worked(topic)
            return True
        return False

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
        LeadershipError: neither the environment nor the service account names it.
    """
    configured = os.environ.get("POD_NAMESPACE")
    if configured:
        return configured
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise LeadershipError(
            "the namespace of leader_lease is unknown: set POD_NAMESPACE to the namespace of the pod"
        ) from error
