"""One call of the command: it submits a batch until that is complete, or the user interrupts it."""

import asyncio
from collections.abc import Callable

from perllm.submission.submission import Submission


async def carry_out(submission: Submission, *, cancels: bool, report: Callable[[str], None]) -> bool:
    """Submit a batch, report how it ended, and return whether all prompts were answered.

    Args:
        submission: the batch; a cancellation of this call interrupts it.
        cancels: whether tasks that have not finished are deleted then.
        report: called with the summary.

    Raises:
        ApiError: tasks cannot be listed.
        SubmissionError: the submission cannot go on.
        OutputError, OSError: an answer could not be written.
    """
    batch = submission.batch
    try:
        await submission.run()
    except asyncio.CancelledError:
        report(f"interrupted: {submission.tally}")
        report(await _cancel(submission) if cancels else _explain_leftovers(submission))
        return False
    report(f"batch {batch.name}: {submission.tally}")
    return submission.tally.answered == len(batch.tasks)


async def _cancel(submission: Submission) -> str:
    unfinished = submission.unfinished
    failures = await submission.cancel()
    words = f"{unfinished - failures} unfinished tasks deleted"
    return f"{words}, {failures} could not be; {_explain_leftovers(submission)}" if failures else words


def _explain_leftovers(submission: Submission) -> str:
    batch = submission.batch
    stop = f"kubectl delete llmtasks --namespace {batch.namespace} --selector {batch.selector}"
    return (
        f"{submission.unfinished} unfinished tasks of batch {batch.name} continue. Repeat the same command to collect "
        f"their answers, or delete all tasks of the batch: {stop}"
    )
