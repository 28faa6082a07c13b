"""A task in words: how it ended, where and why, why not elsewhere, and whether it went as predicted.

All times count from the creation of the task, as in its status.
"""

from collections.abc import Iterator, Sequence

from perllm.api.task_status import AlternativeStatus, ConditionType, DecisionStatus, RunsAs, TaskPhase, TaskStatus
from perllm.overview.reading import SeenTask
from perllm.overview.words import describe_energy, format_joules, format_seconds, format_share, tabulate
from perllm.text import clean_line

NOTICEABLE_WAIT_S = 0.5
UNUSUAL = 1.5
"""An answer longer by this factor than expected explains why a task took longer."""

CAUSES = {
    "tier": "not of a tier that the task allows",
    "size": "too few GPUs",
    "selector": "without the labels that the pod selects",
    "taint": "with a taint that the pod does not tolerate",
    "node-condition": "unhealthy, by its own conditions",
    "server": "without a ready model server of the model",
    "circuit": "avoided after recent refusals or failures there",
    "hold": "on hold after nodes refused the task",
    "avoided": "where an earlier attempt at the task ended badly",
    "compute": "without a free slot",
    "bandwidth": "with a full uplink",
    "late": "where it would probably have been late",
    "harm": "where it would have made other tasks late",
    "price": "whose capacity is worth more to later tasks",
}

LOSSES = {
    "chance": "it was less likely to be in time there",
    "harm": "it would have put deadlines of other tasks at risk",
    "rent": "capacity there was scarcer",
    "energy": "it would have cost more energy",
}


def explain_task(task: SeenTask, now_s: float, models: Sequence[str] = ()) -> list[str]:
    """Return the explanation of a task, line by line.

    Args:
        task: the task.
        now_s: Unix time.
        models: models that model servers offer now, if that is known.
    """
    lines = [f"Task {task.key} ({task.model or 'unknown model'}): {_describe_state(task, now_s)}"]
    decision = task.status.decision
    if decision is None:
        return lines + list(_explain_unplaced(task, models))
    lines += _explain_place(task, decision)
    if not task.status.phase.is_final and task.status.message:
        lines.append(f"  Now       {clean_line(task.status.message)}")
    lines += _explain_alternatives(task.status, decision)
    return lines + _compare(task, decision)


def _describe_state(task: SeenTask, now_s: float) -> str:
    status, latency_s = task.status, task.latency_s
    of = f" of {task.deadline_s:g} s" if task.deadline_s is not None else ""
    if not status.phase.is_final:
        doing = "waiting" if status.phase is TaskPhase.PENDING else status.phase.lower()
        late = "; its deadline has passed" if _is_late(task, now_s) else ""
        return f"{doing}, {format_seconds(max(now_s - task.created_s, 0.0))}{of} have passed{late}"
    took = f" after {format_seconds(latency_s)}{of}" if latency_s is not None else ""
    if status.phase is not TaskPhase.SUCCEEDED:
        return f"{status.phase.lower()}{took}: {clean_line(status.message or 'no reason given')}"
    partly = f"; {clean_line(status.message)}" if status.message else ""
    return f"{'in time' if status.deadline_met else 'LATE'}, complete{took}; energy: {describe_energy(status)}{partly}"


def _is_late(task: SeenTask, now_s: float) -> bool:
    return task.deadline_s is not None and now_s - task.created_s > task.deadline_s


def _explain_unplaced(task: SeenTask, models: Sequence[str]) -> Iterator[str]:
    """Yield what a task waits for that has no node, or why it never got one."""
    status, scheduled = task.status, task.find_condition(ConditionType.SCHEDULED)
    if status.node_name is not None:
        yield f"  Where     {status.node_name}, and why is not known: PerLLM has no record of a decision"
        return
    if status.phase.is_final:
        yield "  It was not placed on any node."
        return
    if scheduled is None:
        yield "  PerLLM has not picked it up: is the operator running, and does it serve this namespace?"
        return
    cause = clean_line(status.message or scheduled.message).removeprefix("waiting: ").removeprefix("waiting ")
    yield f"  It is waiting{' ' if cause.startswith('for ') else ': '}{cause} ({scheduled.reason})"
    if task.is_served and models and task.model not in models:
        yield f"  No model server offers {task.model} now; they offer {', '.join(sorted(models))}."
    if status.attempts:
        failed = len(status.failed_attempts or ())
        yield f"  Attempts so far: {status.attempts}, of which {failed} failed by themselves."


def _explain_place(task: SeenTask, decision: DecisionStatus) -> Iterator[str]:
    status, scheduled = task.status, task.find_condition(ConditionType.SCHEDULED)
    kind = ", ".join(word for word in (status.tier, status.gpu_type) if word)
    way = "a request to its model server" if status.runs_as is RunsAs.REQUEST else "a pod"
    attempt = f", attempt {status.attempts}" if status.attempts > 1 else ""
    yield f"  Where     {status.node_name}{f' ({kind})' if kind else ''}, as {way}{attempt}"
    yield f"  When      {_describe_wait(decision)}"
    reason = clean_line(scheduled.message) if scheduled is not None and scheduled.status == "True" else "unknown"
    explored = ", to learn about this node" if decision.explored else ""
    yield f"  Why       by {decision.policy}{explored}: {reason}"


def _describe_wait(decision: DecisionStatus) -> str:
    waited_s = decision.waited
    if waited_s is None:
        return "unknown"
    if waited_s < NOTICEABLE_WAIT_S:
        return f"placed at once, {format_seconds(waited_s)} after its creation"
    cause = clean_line(decision.waited_for or "for its turn or for room").removeprefix("waiting: ")
    return f"placed {format_seconds(waited_s)} after its creation; until then it waited: {cause}"


def _explain_alternatives(status: TaskStatus, decision: DecisionStatus) -> Iterator[str]:
    rows = [["  Why not", "in time", "seconds", "joules", "because"]]
    rows += [_list_alternative(one) for one in decision.alternatives]
    if len(rows) > 1:
        yield from tabulate(rows, right=(1, 2, 3))
    if decision.rejected:
        excluded = "; ".join(_count_excluded(cause, count) for cause, count in decision.rejected.items())
        yield f"  Excluded  {excluded}"
    other = decision.counterfactual
    if other is not None:
        where = "the same node" if other.node == status.node_name else other.node
        expected = f"{format_seconds(other.predicted_latency)}, {format_joules(other.predicted_energy)}"
        chance = format_share(other.hit_chance)
        yield f"  Otherwise the plain kube-scheduler would have taken {where}: {expected}, {chance} in time"


def _count_excluded(cause: str, count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'} {CAUSES.get(cause, f'by {cause}')}"


def _list_alternative(other: AlternativeStatus) -> list[str]:
    if other.has_room is False:
        why = "it had no room"
    else:
        why = LOSSES.get(other.lost_by or "", other.lost_by or "it was no better")
    return [
        f"    {other.node}" + (f" ({other.gpu_type})" if other.gpu_type else ""),
        format_share(other.hit_chance),
        format_seconds(other.predicted_latency),
        format_joules(other.predicted_energy),
        why,
    ]


def _compare(task: SeenTask, decision: DecisionStatus) -> list[str]:
    """Return the prediction next to the outcome, and what explains a difference."""
    observed, status = task.status.observed, task.status
    low, high = format_seconds(decision.predicted_latency_low), format_seconds(decision.predicted_latency_high)
    met = "" if status.deadline_met is None else "yes" if status.deadline_met else "NO"
    tokens = observed.tokens if observed is not None else None
    energy = describe_energy(status) if status.phase.is_final else ""
    rows = [
        ["", "predicted", "outcome"],
        ["  time", f"{format_seconds(decision.predicted_latency)} ({low} to {high})", _seconds(task.latency_s)],
        ["  in time", format_share(decision.hit_chance), met],
        ["  energy", format_joules(decision.predicted_energy), energy],
        ["  answer", _tokens(decision.expected_output_tokens), _tokens(tokens)],
    ]
    return [*tabulate(rows), *_explain_differences(task, decision, tokens)]


def _explain_differences(task: SeenTask, decision: DecisionStatus, tokens: int | None) -> Iterator[str]:
    expected, latency_s, high_s = decision.expected_output_tokens, task.latency_s, decision.predicted_latency_high
    if tokens and expected and tokens > UNUSUAL * expected:
        yield f"  The answer was {tokens / expected:.1f} times as long as expected."
    if latency_s is not None and high_s is not None and latency_s > high_s:
        yield "  It took longer than 19 in 20 such tasks were expected to."
    queue_s = task.status.observed.queue if task.status.observed is not None else None
    if queue_s is not None and latency_s and queue_s > latency_s / 2:
        yield f"  {format_seconds(queue_s)} of its time passed before it began to run."


def _seconds(value: float | None) -> str:
    return "" if value is None else format_seconds(value)


def _tokens(count: float | None) -> str:
    return "" if count is None else f"{count:.0f} tokens"
