"""All nodes and tasks at one moment, as lines for a terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from perllm.api.node_profile import CircuitState
from perllm.api.task_status import ConditionType, TaskPhase
from perllm.overview.reading import SeenNode, SeenTask
from perllm.overview.words import format_joules, format_seconds, format_share, tabulate
from perllm.text import clean_line, cut

MAX_CAUSES = 3
LATELY_S = 60.0


def summarise(
    tasks: Sequence[SeenTask],
    nodes: Sequence[SeenNode],
    now_s: float,
    *,
    rows: int,
    where: str,
    most_nodes: int | None = None,
) -> list[str]:
    """Return the overview, line by line.

    Args:
        tasks: those that are kept on the API server.
        nodes: the fleet; empty if it may not be read.
        now_s: Unix time.
        rows: maximum number of tasks that are listed.
        where: what the tasks are those of, in words.
        most_nodes: maximum number of nodes that are listed; None for all.
    """
    lines = [f"Tasks of {where}: {_count(tasks)}", *_describe_lately(tasks, now_s), *_describe_waits(tasks)]
    if nodes:
        lines += ["", *_list_nodes(nodes, tasks, most_nodes)]
    if tasks and rows:
        lines += ["", *_list_tasks(tasks, now_s, rows)]
    return lines


def _count(tasks: Iterable[SeenTask]) -> str:
    phases = Counter(task.status.phase for task in tasks)
    counts = ", ".join(f"{phases[phase]} {phase.lower()}" for phase in TaskPhase if phases[phase])
    return f"{counts or 'none'}{_describe_ends([task for task in tasks if task.status.phase.is_final])}"


def _describe_lately(tasks: Sequence[SeenTask], now_s: float) -> Iterator[str]:
    ended = [task for task in tasks if (at := task.status.completion_time) and now_s - at.timestamp() <= LATELY_S]
    if ended:
        yield f"In the last minute: {len(ended)} ended{_describe_ends(ended)}"


def _describe_ends(ended: Sequence[SeenTask]) -> str:
    """Return how many tasks were in time, and what they took, as far as it is known."""
    if not ended:
        return ""
    met = sum(task.status.deadline_met is True for task in ended)
    known = [task.energy_j for task in ended if task.energy_j is not None]
    energy = f", {format_joules(sum(known))}" if known else ""
    partly = f" of the {len(known)} whose energy is known" if known and len(known) < len(ended) else ""
    return f"; {met} of {len(ended)} in time{energy}{partly}"


def _describe_waits(tasks: Iterable[SeenTask]) -> Iterator[str]:
    """Yield what tasks wait for, the most frequent cause first."""
    causes: Counter[str] = Counter()
    for task in tasks:
        if task.status.phase is TaskPhase.PENDING:
            scheduled = task.find_condition(ConditionType.SCHEDULED)
            cause = task.status.message or (scheduled.message if scheduled else "not picked up by any operator")
            causes[clean_line(cause).removeprefix("waiting: ")] += 1
    for cause, count in causes.most_common(MAX_CAUSES):
        yield f"{count} waiting: {cause}"


def _list_nodes(nodes: Sequence[SeenNode], tasks: Sequence[SeenTask], most: int | None) -> Iterator[str]:
    rows = [["NODE", "TIER", "GPU", "SERVES", "BUSY", "TASKS", "ENDED", "IN TIME", "JOULES", "CIRCUIT"]]
    by_node: dict[str | None, list[SeenTask]] = {}
    for task in tasks:
        by_node.setdefault(task.status.node_name, []).append(task)
    for node in sorted(nodes, key=lambda node: (str(node.status.tier), node.name))[:most]:
        rows.append(_list_node(node, by_node.get(node.name, ())))
    yield from tabulate(rows, right=(4, 5, 6, 7, 8))
    left_out = len(nodes) - (len(rows) - 1)
    if left_out:
        yield f"... and {left_out} more nodes"


def _list_node(node: SeenNode, there: Sequence[SeenTask]) -> list[str]:
    status, serving = node.status, node.status.serving
    ended = [task for task in there if task.status.phase.is_final]
    met = sum(task.status.deadline_met is True for task in ended)
    known = [task.energy_j for task in ended if task.energy_j is not None]
    is_closed = status.circuit is None or status.circuit.state is CircuitState.CLOSED
    return [
        node.name,
        status.tier or "",
        cut(status.gpu_type or "", 20),
        cut(",".join(serving.models), 20) if serving else "",
        serving.busy if serving else "",
        str(len(there) - len(ended)),
        str(len(ended)),
        format_share(met / len(ended)) if ended else "",
        format_joules(sum(known)) if known else "",
        "" if is_closed or status.circuit is None else f"{status.circuit.state}: {clean_line(status.circuit.reason)}",
    ]


def _list_tasks(tasks: Sequence[SeenTask], now_s: float, count: int) -> Iterator[str]:
    """Yield the tasks that have not ended, the most urgent first, then the last ones that have."""
    open_tasks = sorted((one for one in tasks if not one.status.phase.is_final), key=lambda one: _left_s(one, now_s))
    ended = sorted((one for one in tasks if one.status.phase.is_final), key=_ended_s, reverse=True)
    rows = [["TASK", "PHASE", "MODEL", "NODE", "TIME", "DEADLINE", "IN TIME", "ENERGY"]]
    rows += [_list_task(task, now_s) for task in [*open_tasks, *ended][:count]]
    yield from tabulate(rows, right=(4, 5, 7))
    if len(tasks) > count:
        yield f"... and {len(tasks) - count} more"


def _list_task(task: SeenTask, now_s: float) -> list[str]:
    status, latency_s = task.status, task.latency_s
    met = {True: "yes", False: "NO", None: ""}[status.deadline_met]
    chance = status.decision.hit_chance if status.decision is not None else None
    return [
        cut(task.key, 40),
        status.phase,
        cut(task.model, 20),
        status.node_name or "",
        format_seconds(max(now_s - task.created_s, 0.0) if latency_s is None else latency_s),
        format_seconds(task.deadline_s),
        met or ("" if chance is None else f"{format_share(chance)}?"),
        format_joules(task.energy_j) if task.energy_j is not None else "",
    ]


def _left_s(task: SeenTask, now_s: float) -> float:
    return task.created_s + (task.deadline_s or 0.0) - now_s


def _ended_s(task: SeenTask) -> float:
    return task.status.completion_time.timestamp() if task.status.completion_time is not None else 0.0
