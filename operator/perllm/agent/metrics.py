"""The agent's own metrics. Names and labels are a stable interface; no label has unbounded values."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from perllm.api.node_server import NodeModelServer
from perllm.api.served_run import ServedRun

_LENGTH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class ModelServerMetrics:
    """The model servers of the node."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.known = Gauge(
            "perllm_agent_servers", "Model servers, by whether they are ready.", ["ready"], registry=registry
        )
        self.down = Gauge(
            "perllm_agent_servers_down",
            "Model servers that are not ready and should be: those in pods, and others that have been ready since the "
            "agent started.",
            registry=registry,
        )
        self.foreign = Gauge(
            "perllm_agent_foreign_requests", "Requests of the model servers that are not PerLLM's.", registry=registry
        )

    def show(self, states: Sequence[NodeModelServer]) -> None:
        """Set what is known of them."""
        ready = sum(one.ready for one in states)
        self.known.labels("true").set(ready)
        self.known.labels("false").set(len(states) - ready)
        self.foreign.set(sum(one.foreign for one in states))


class AgentMetrics:
    """All metrics of the agent, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "perllm_agent_requests",
            "Requests that ended, by how: Answered, Failed or Unavailable; those of one task count once.",
            ["end"],
            registry=registry,
        )
        self.closed = Counter(
            "perllm_agent_requests_closed",
            "Requests that were closed because their task was deleted, moved or out of time.",
            registry=registry,
        )
        self.length = Histogram(
            "perllm_agent_request_seconds", "Duration of answered requests.", buckets=_LENGTH_BUCKETS, registry=registry
        )
        self.first_token = Histogram(
            "perllm_agent_first_token_seconds",
            "Time to the first token of answered requests.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.tokens = Counter("perllm_agent_tokens", "Tokens of answered requests.", registry=registry)
        self.running = Gauge("perllm_agent_requests_running", "Requests in process.", registry=registry)
        self.waiting = Gauge("perllm_agent_requests_waiting", "Assignments that wait for a slot.", registry=registry)
        self.reports = Gauge(
            "perllm_agent_reports_waiting", "Writes that the API server has not accepted yet.", registry=registry
        )
        self.report_wait = Gauge(
            "perllm_agent_report_wait_seconds",
            "For how long the API server has not accepted the report of a request, of the one that has waited longest.",
            registry=registry,
        )
        self.servers = ModelServerMetrics(registry)
        self.lease = Gauge(
            "perllm_agent_lease_valid", "1 if new requests may be made, 0 if the Lease has expired.", registry=registry
        )
        self.faults = Counter(
            "perllm_agent_faults",
            "Unexpected failures, by the kind of object; work on other objects continued.",
            ["kind"],
            registry=registry,
        )

    def watch(
        self,
        *,
        reports: Callable[[], int],
        report_wait_s: Callable[[], float],
        lease: Callable[[], bool],
        down: Callable[[], int],
    ) -> None:
        """Read these figures whenever the metrics are read."""
        self.reports.set_function(reports)
        self.report_wait.set_function(report_wait_s)
        self.lease.set_function(lease)
        self.servers.down.set_function(down)

    def note_run(self, run: ServedRun) -> None:
        """Count a request that ended."""
        self.requests.labels(run.end).inc()
        if run.problem is not None:
            return
        self.length.observe((run.end_time - run.start_time).total_seconds())
        if run.time_to_first_token is not None:
            self.first_token.observe(run.time_to_first_token)
        self.tokens.inc(run.tokens or 0)
