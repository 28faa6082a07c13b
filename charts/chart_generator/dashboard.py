"""The Grafana dashboard of the chart: rows of panels, each of which answers a question."""

from dataclasses import dataclass
from typing import Any

_WIDTH = 24
_HEIGHT = 8
_SCOPE = 'namespace=~"$namespace"'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of curves.

    Attributes:
        title: of the panel.
        unit: as Grafana calls it.
        curves: legends by query; SCOPE stands for the selector of namespaces.
        stacked: whether the curves add up to a whole.
    """

    title: str
    unit: str
    curves: dict[str, str]
    stacked: bool = False


def build_dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    placed = [
        (panel, row, column, len(panels)) for row, panels in enumerate(_ROWS) for column, panel in enumerate(panels)
    ]
    return {
        "uid": "perllm",
        "title": "PerLLM",
        "description": "Deadlines met, energy, decisions, and the quality of the readings behind them.",
        "tags": ["perllm"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_choose_source(), _choose_namespace()]},
        # By their number Grafana opens, links and edits panels.
        "panels": [{"id": number, **_place(*panel)} for number, panel in enumerate(placed, 1)],
    }


def list_queries() -> list[str]:
    """List all queries with all namespaces selected."""
    return [
        _scoped(query).replace("$namespace", ".*").replace("$__rate_interval", "5m")
        for panels in _ROWS
        for panel in panels
        for query in panel.curves
    ]


def _rate(metric: str, by: str = "", where: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{SCOPE{where}}}[$__rate_interval]))"


def _ratio(part: str, whole: str, where: str = "") -> str:
    return f"{_rate(part, 'tier', where)} / {_rate(whole, 'tier')}"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'le, {by}')})"


_ROWS: tuple[tuple[Panel, ...], ...] = (
    (
        Panel(
            "Deadlines met",
            "percentunit",
            {_ratio("perllm_deadlines_total", "perllm_deadlines_total", ',met="true"'): "{{tier}}"},
        ),
        Panel("Tasks finished", "ops", {_rate("perllm_tasks_finished_total", "phase"): "{{phase}}"}, stacked=True),
        Panel(
            "Tasks now",
            "short",
            {
                "sum(perllm_tasks_waiting{SCOPE})": "waiting",
                "sum(perllm_tasks_waiting_for_room{SCOPE})": "waiting for room",
                "sum(perllm_tasks_postponed{SCOPE})": "waiting, pod denied",
                "sum(perllm_tasks_deferred{SCOPE})": "waiting for cheaper energy",
                "sum(perllm_pods_unbound{SCOPE})": "pods without a node",
                "sum(perllm_tasks_in_flight{SCOPE})": "in flight",
            },
        ),
    ),
    (
        Panel("Tasks placed", "ops", {_rate("perllm_decisions_total", "tier"): "{{tier}}"}, stacked=True),
        Panel(
            "Latency from creation to completion",
            "s",
            {
                _quantile(0.5, "perllm_task_latency_seconds", "tier"): "{{tier}} median",
                _quantile(0.95, "perllm_task_latency_seconds", "tier"): "{{tier}} 95th percentile",
            },
        ),
        Panel(
            "Energy per task",
            "joule",
            {_ratio("perllm_task_energy_joules_sum", "perllm_task_energy_joules_count"): "{{tier}}"},
        ),
    ),
    (
        Panel(
            "Nodes by quality of their power reading",
            "short",
            {'max by (quality) (perllm_telemetry_nodes{SCOPE,figure="power"})': "{{quality}}"},
            stacked=True,
        ),
        Panel(
            "Energy measurements",
            "ops",
            {_rate("perllm_energy_measurements_total", "quality"): "{{quality}}"},
            stacked=True,
        ),
        Panel(
            "Where the power of the nodes goes",
            "watt",
            {
                _rate("perllm_node_energy_part_joules_total", "part"): "{{part}}",
                "sum(deriv(perllm_energy_unattributed_joules{SCOPE}[$__rate_interval]))": "unattributed",
            },
            stacked=True,
        ),
        Panel(
            "Power by namespace of tasks",
            "watt",
            {_rate("perllm_bill_joules_total", "payer", ',by="namespace",part="inference"'): "{{payer}}"},
            stacked=True,
        ),
        Panel(
            "Age of the readings", "s", {"max(perllm_telemetry_age_seconds{SCOPE})": "since the last successful poll"}
        ),
    ),
    (
        Panel(
            "Decision latency",
            "s",
            {
                _quantile(0.99, "perllm_extender_seconds", "verb"): "{{verb}} 99th percentile",
                _quantile(0.99, "perllm_loop_lag_seconds", "pod"): "{{pod}} loop lag, 99th percentile",
            },
        ),
        Panel(
            "Errors",
            "ops",
            {
                _rate("perllm_extender_errors_total", "verb"): "extender {{verb}}",
                _rate("perllm_pods_refused_total"): "pods refused by nodes",
                _rate("perllm_telemetry_failures_total"): "failed polls of Prometheus",
                _rate("perllm_watch_restarts_total"): "watch restarts",
                _rate("perllm_ledger_repairs_total"): "repairs of the ledger",
            },
        ),
        Panel(
            "Active replicas, outcomes learned",
            "short",
            {
                "sum(perllm_active{SCOPE})": "active",
                "sum(increase(perllm_outcomes_learned_total{SCOPE}[1h]))": "outcomes in the last hour",
            },
        ),
    ),
)


def _place(panel: Panel, row: int, column: int, columns: int) -> dict[str, Any]:
    width = _WIDTH // columns
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": width, "x": column * width, "y": row * _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 30 if panel.stacked else 0,
                    "stacking": {"mode": "normal" if panel.stacked else "none"},
                },
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": _scoped(query), "legendFormat": legend}
            for number, (query, legend) in enumerate(panel.curves.items())
        ],
    }


def _scoped(query: str) -> str:
    return query.replace("SCOPE", _SCOPE)


def _choose_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _choose_namespace() -> dict[str, Any]:
    return {
        "name": "namespace",
        "label": "Namespace of PerLLM",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(perllm_active, namespace)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
