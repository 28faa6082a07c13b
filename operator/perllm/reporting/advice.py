"""What would help: a sentence for each thing that a report shows to be in the way."""

from collections.abc import Callable, Iterator

from perllm.learning.priors import GENERIC, find_prior
from perllm.reporting.report import Report, add_up

MIN_TASKS = 10
"""Fewer tasks say too little."""

UNCERTAIN_TASKS = 50
"""As many tasks on a GPU type as it takes until predictions there do without published figures."""

TRANSFER_SHARE = 0.2
QUEUE_SHARE = 0.3
MISSING_SHARE = 0.05
COARSE_SHARE = 0.5
IDLE_SHARE = 0.5
UNKNOWN_SHARE = 0.1
HOPELESS_SHARE = 0.05


def list_advice(report: Report) -> list[str]:
    """Return what would help; nothing if nothing stands out."""
    return [words for rule in _RULES for words in rule(report)]


def _advise_deadlines(report: Report) -> Iterator[str]:
    hopeless = [one for one in report.promises if one.most <= 50]
    tasks = sum(one.tasks for one in hopeless) + sum(
        count for (_, reason), count in report.missed.items() if reason == "Infeasible"
    )
    if report.judged >= MIN_TASKS and tasks >= HOPELESS_SHARE * report.judged:
        worst = max(report.bill.lines, key=lambda line: line.judged - line.met)
        yield (
            f"Deadlines that no node is likely to meet: {tasks:,.0f} of {report.judged:,.0f} tasks had a chance below "
            f"50 %, most missed deadlines are of namespace {worst.payer}. Longer deadlines, shorter answers or faster "
            "nodes."
        )


def _advise_capacity(report: Report) -> Iterator[str]:
    seconds = add_up(report.nodes).seconds
    waited_s, all_s = seconds.get("queue", 0.0), sum(seconds.values())
    if report.judged >= MIN_TASKS and waited_s > QUEUE_SHARE * all_s:
        yield f"More nodes or slots: tasks spent {waited_s / all_s:.0%} of their time waiting to start."


def _advise_uplinks(report: Report) -> Iterator[str]:
    for node in report.nodes:
        all_s, transfer_s = sum(node.seconds.values()), node.seconds.get("transfer", 0.0)
        if node.tasks >= MIN_TASKS and transfer_s > TRANSFER_SHARE * all_s:
            spent = transfer_s / all_s
            yield f"A faster uplink of {node.node}: tasks there spent {spent:.0%} of their time on transfer."


def _advise_types(report: Report) -> Iterator[str]:
    tasks: dict[str, float] = {}
    for node in report.nodes:
        tasks[node.gpu] = tasks.get(node.gpu, 0.0) + node.tasks
    for gpu, count in tasks.items():
        if gpu and find_prior(gpu) is GENERIC and count < UNCERTAIN_TASKS:
            yield (
                f"More tasks on {gpu}: there are no published figures of this type, and only {count:,.0f} tasks have "
                "shown how fast it is. Tasks with long deadlines make it known."
            )


def _advise_metering(report: Report) -> Iterator[str]:
    qualities: dict[str, float] = {}
    for line in report.bill.lines:
        for quality, count in line.measurements.items():
            qualities[quality] = qualities.get(quality, 0.0) + count
    tasks = sum(qualities.values())
    missing, coarse = qualities.get("missing", 0.0), qualities.get("coarse", 0.0)
    if tasks >= MIN_TASKS and missing > MISSING_SHARE * tasks:
        yield f"Energy meters: the energy of {missing / tasks:.0%} of the tasks is missing. perllm doctor says why."
    if tasks >= MIN_TASKS and coarse > COARSE_SHARE * tasks:
        yield f"More frequent scrapes of the energy meters: the energy of {coarse / tasks:.0%} of the tasks is coarse."


def _advise_energy(report: Report) -> Iterator[str]:
    bill = report.bill
    if bill.measured_j and bill.idle_j > IDLE_SHARE * bill.measured_j:
        yield f"Fewer nodes that are on: {bill.idle_j / bill.measured_j:.0%} of the energy went to empty nodes."
    if bill.measured_j and bill.unattributed_j > UNKNOWN_SHARE * bill.measured_j:
        yield (
            f"Look for other users of the GPUs: {bill.unattributed_j / bill.measured_j:.0%} of the energy belongs to "
            "no task, no foreign request and no idle node."
        )


_RULES: tuple[Callable[[Report], Iterator[str]], ...] = (
    _advise_deadlines,
    _advise_capacity,
    _advise_uplinks,
    _advise_types,
    _advise_metering,
    _advise_energy,
)
