"""The status of a task at each stage of its life; lifecycle.py decides which stage comes next."""

from perllm.api.served_run import ServedRun
from perllm.api.task_status import ConditionType, Observation, Result, RunsAs, TaskPhase, TaskStatus
from perllm.cluster.pod import Pod
from perllm.cluster.times import to_time
from perllm.controller.clocks import RESOLUTION_S
from perllm.controller.conditions import set_condition
from perllm.controller.decisions import read_decision
from perllm.controller.explanations import AWAITS_TURN
from perllm.controller.task import Task
from perllm.costs.service import Expense
from perllm.energy.attribution import Attribution


def accept(task: Task, status: TaskStatus, now_s: float) -> TaskStatus:
    """Note that PerLLM has accepted a task with its newest spec."""
    status = follow(task, status).change(received_time=to_time(task.received_s))
    status = put_condition(task, status, ConditionType.ACCEPTED, True, "Accepted", "", now_s)
    return put_condition(task, status, ConditionType.FINISHED, False, "InProgress", "", now_s)


def follow(task: Task, status: TaskStatus) -> TaskStatus:
    """Note that a status holds for the newest spec; `kubectl wait` ignores conditions of an older one."""
    generation = task.generation
    if status.observed_generation == generation and all(
        one.observed_generation == generation for one in status.conditions
    ):
        return status
    conditions = tuple(one.change(observed_generation=generation) for one in status.conditions)
    return status.change(observed_generation=generation, conditions=conditions)


def place(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    """Note where the task was placed, and why."""
    if status.node_name == pod.node and status.pod_name == pod.name and status.decision is not None:
        return status
    decision = read_decision(task, pod)
    status = status.change(
        node_name=pod.node,
        pod_name=pod.name,
        runs_as=find_way(pod),
        decision_record=pod.decision_record if pod.is_served else None,
    )
    if decision is not None:
        status = status.change(
            tier=decision.tier,
            gpu_type=decision.gpu_type,
            decision=decision.to_status(task.received_s).change(waited_for=find_wait(status)),
        )
    reason = decision.reason if decision else "bound without a decision by PerLLM"
    status = put_condition(task, status, ConditionType.SCHEDULED, True, "Placed", reason, now_s)
    fresh = decision is not None and decision.metrics_age_s is not None
    return put_condition(
        task,
        status,
        ConditionType.METRICS_AVAILABLE,
        fresh,
        "MetricsFresh" if fresh else "MetricsMissing",
        "" if fresh else "placed without current metrics of the node; learned estimates and defaults were used",
        now_s,
    )


def find_way(pod: Pod) -> RunsAs:
    """Return what carries out an attempt."""
    return RunsAs.REQUEST if pod.is_served else RunsAs.POD


def find_wait(status: TaskStatus) -> str | None:
    """Return what a task has waited for until now; None if it has only waited for its turn."""
    waits = (one for one in status.conditions if one.type == ConditionType.SCHEDULED and one.status == "False")
    return next((one.message for one in waits if one.message != AWAITS_TURN), None)


def unplace(status: TaskStatus) -> TaskStatus:
    """Forget where an earlier attempt was placed."""
    place = ("pod_name", "node_name", "tier", "gpu_type", "start_time", "decision", "decision_record")
    return status.change(**dict.fromkeys((*place, "runs_as", "run", "result")))


def succeed(task: Task, status: TaskStatus, pod: Pod, now_s: float) -> TaskStatus:
    """End a task whose pod did its work, and note what was observed of it."""
    status = place(task, status, pod, now_s)
    finished_s = now_s if pod.finished_s is None else pod.finished_s
    latency_s = max(finished_s - task.received_s, 0.0)
    met = latency_s <= task.valid_spec.deadline_s
    started_s = _find_start_s(status, pod)
    queue_s = None if started_s is None else max(started_s - task.received_s, 0.0)
    observed = Observation.of_report(pod.report, queue=queue_s, latency=latency_s)
    status = status.change(
        phase=TaskPhase.SUCCEEDED,
        message=_describe_unanswered(status.run),
        start_time=None if started_s is None else to_time(started_s),
        completion_time=to_time(task.received_s + latency_s),
        observed=observed,
        deadline_met=met,
    )
    status = put_condition(task, status, ConditionType.COMPLETED, True, "Succeeded", "", now_s)
    status = put_condition(task, status, ConditionType.FINISHED, True, "Succeeded", "", now_s)
    verdict = f"{latency_s:.2f} s of {task.valid_spec.deadline_s:g} s"
    return put_condition(task, status, ConditionType.DEADLINE_MET, met, "Met" if met else "Missed", verdict, now_s)


def note_energy(observed: Observation, measured: Attribution, transmission_j: float, expense: Expense) -> Observation:
    """Note the measured energy of a task, its parts, and what it cost; joules of all parts add up to the whole."""
    known: dict[str, object] = {"energy_quality": measured.quality}
    if measured.energy_j is not None:
        energy_j, idle_j = round(measured.energy_j, 3), round(measured.idle_j or 0.0, 3)
        known |= {
            "energy_joules": energy_j,
            "transmission_joules": round(transmission_j, 3),
            "idle_joules": idle_j,
            "inference_joules": round(energy_j - round(transmission_j, 3) - idle_j, 3),
            "money": expense.money,
            "carbon_grams": expense.grams,
        }
    return Observation.model_validate(observed.model_dump() | known)


def miss_deadline(task: Task, status: TaskStatus, now_s: float) -> TaskStatus:
    """Note that the deadline has passed."""
    return put_condition(
        task, status.change(deadline_met=False), ConditionType.DEADLINE_MET, False, "Missed", "", now_s
    )


def end(task: Task, status: TaskStatus, phase: TaskPhase, reason: str, message: str, now_s: float) -> TaskStatus:
    """End a task that did not succeed."""
    ended = status.change(
        observed_generation=task.generation,
        phase=phase,
        message=message,
        completion_time=to_time(now_s),
        deadline_met=False,
    )
    for kind in (ConditionType.COMPLETED, ConditionType.DEADLINE_MET):
        ended = put_condition(task, ended, kind, False, reason, message, now_s)
    return put_condition(task, ended, ConditionType.FINISHED, True, reason, message, now_s)


def read_result(pod: Pod | None) -> Result | None:
    """Return the result of a pod's run, as far as it was reported."""
    report = pod.report if pod else None
    if report is None or (report.text is None and report.result is None):
        return None
    return Result(text=report.text, truncated=report.truncated, location=report.result)


def put_condition(
    task: Task, status: TaskStatus, kind: ConditionType, value: bool | None, reason: str, message: str, now_s: float
) -> TaskStatus:
    """Set one condition of a task."""
    conditions = set_condition(status.conditions, kind, value, reason, message, generation=task.generation, now_s=now_s)
    return status.change(conditions=conditions)


def _describe_unanswered(run: ServedRun | None) -> str | None:
    """Return how many prompts have no answer although the task has succeeded; None if all have one."""
    prompts = run.prompts if run else None
    return f"{prompts.failed} of {prompts.total} prompts were not answered" if prompts and prompts.failed else None


def _find_start_s(status: TaskStatus, pod: Pod) -> float | None:
    """Return when a pod started; after a restart of the operator it must not be later than before."""
    known_s = status.start_time.timestamp() if status.start_time else None
    if known_s is None or pod.started_s is None:
        return pod.started_s if known_s is None else known_s
    return min(pod.started_s, known_s + RESOLUTION_S)
