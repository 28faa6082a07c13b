"""Runs jobs in several processes."""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import TypeVar

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

OnProgress = Callable[[int, int, str], None]
S = TypeVar("S")
J = TypeVar("J")
T = TypeVar("T")


class ParallelError(Exception):
    """A job failed; the message names it and the error."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: str
    trace: str


def run_parallel(
    work: Callable[[S, J], T], shared: S, jobs: Sequence[J], processes: int, on_progress: OnProgress | None = None
) -> list[T]:
    """Return `work(shared, job)` of every job, in the order of the jobs.

    Args:
        work: a module-level function, so that other processes find it.
        shared: given to all jobs.
        jobs: the jobs; their text is their name.
        processes: how many at once.
        on_progress: called with the number of jobs done, the number of all jobs, and the last one.

    Raises:
        ParallelError: a job failed; the others are cancelled.
    """
    results: dict[int, T] = {}
    report = on_progress or (lambda done, total, note: None)
    report(0, len(jobs), "")
    with _pool(max(1, min(processes, len(jobs)))) as pool:
        futures = {pool.submit(_try, work, shared, job): place for place, job in enumerate(jobs)}
        for future in as_completed(futures):
            place = futures[future]
            results[place] = _take(jobs[place], future)
            report(len(results), len(jobs), str(jobs[place]))
    return [results[place] for place in range(len(jobs))]


def _try(work: Callable[[S, J], T], shared: S, job: J) -> T | _Failure:
    try:
        return work(shared, job)
    except Exception as error:
        # Not every error can be pickled; its text can.
        return _Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def _take(job: object, future: "Future[T | _Failure]") -> T:
    try:
        result = future.result()
    except BrokenProcessPool as error:
        reason = "a process died, perhaps out of memory; try fewer processes"
        raise ParallelError(f"{job}, or a job running at the same time, failed: {reason}") from error
    if isinstance(result, _Failure):
        raise ParallelError(f"{job} failed: {result.error}\n\n{result.trace}")
    return result


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end when this one fails, is interrupted or killed, with one thread each for linear algebra.

    Even a single job gets its own process: in this one, numpy fixed the number of threads when it was imported, and
    with it the last digits of results.
    """
    before = {process.pid for process in active_children()}
    with _environment(ONE_THREAD):
        context = get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare)
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                if process.pid not in before:
                    process.terminate()
            raise
        finally:
            pool.shutdown(wait=True)


def _prepare() -> None:
    """Leave Ctrl-C to the process that has started this one, and end with it, however it ends."""
    signal(SIGINT, SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
