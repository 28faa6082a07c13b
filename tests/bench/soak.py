"""`make soak`: tasks flow through a lab as fast as it can; memory, time and writes per task are to stay flat."""

import asyncio
import itertools
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import orjson
from rich.console import Console

from bench.cluster import cpu_s, create_all, memory_mib, read_metrics
from bench.fleets import TASKS, build_scenario, build_tasks
from bench.tables import Row, render
from bench.whole_loop import LEARNED, SPEED, write_scenario
from bench.write_counts import count_writes, summarize_writes
from e2e.audit import AuditLog, record_writes_of
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.kubernetes.toolchain import default_cache_folder, provide
from perllm_lab.lab import COMPONENTS, Lab, LabSettings

FINISHED = "perllm_tasks_finished_total"
TTL = "10s"
BATCH, WINDOW = 50, 400
SAMPLE_TASKS = 1000
POLL_S = 1.0
PATIENCE_S = 120.0
WIDTH = 160

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the operator after so many tasks; sums count since the first task.

    Attributes:
        tasks: that have finished.
        learned: outcomes.
        span_s: seconds.
        cpu_s: processor seconds of the operator.
        memory_mib: its resident memory.
        writes: its requests that changed something, by verb and kind.
    """

    tasks: int
    learned: int
    span_s: float
    cpu_s: float
    memory_mib: float
    writes: Mapping[str, int]


@click.command(help=__doc__)
@click.option(
    "--tasks", default=100_000, show_default=True, type=click.IntRange(min=2 * SAMPLE_TASKS), help="How many."
)
@click.option("--nodes", default=100, show_default=True, type=click.IntRange(min=1), help="How many are simulated.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lab"),
    show_default=True,
    help="Parent of the folder with the files of this run, which the next run replaces.",
)
def main(tasks: int, nodes: int, folder: Path) -> None:
    console, folder = Console(width=WIDTH), folder.absolute() / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    samples: list[Sample] = []
    try:
        asyncio.run(Soak(folder, samples, console.print).run(tasks, nodes))
    except KeyboardInterrupt:
        console.print("interrupted")
    console.print(render(summarize(samples)) if len(samples) > 1 else "too short to show anything")
    console.print(f"samples and logs: {folder}")


@dataclass(slots=True)
class Soak:
    """One run.

    Attributes:
        folder: for its files.
        samples: filled while it goes on.
        say: is given a line about each sample.
    """

    folder: Path
    samples: list[Sample]
    say: Say

    async def run(self, tasks: int, nodes: int) -> None:
        """Let so many tasks flow through a lab.

        Raises:
            RuntimeError: none finishes any more.
        """
        binaries = await provide(COMPONENTS, cache_folder=default_cache_folder())
        scenario, audit = build_scenario(nodes), AuditLog(self.folder / "audit", record_writes_of(OPERATOR_USER))
        file = write_scenario(scenario, self.folder)
        settings = LabSettings(str(file), SPEED, flags={"kube-apiserver": audit.flags})
        async with Lab(binaries, scenario, self.folder, settings) as lab:
            await self._flow(lab, audit, tasks)

    async def _flow(self, lab: Lab, audit: AuditLog, tasks: int) -> None:
        """Create tasks while few are unfinished, and take a sample whenever enough have finished."""
        start_s, cpu_before_s, created, finished = time.monotonic(), cpu_s(lab.operator.pid or 0), 0, 0
        writes, changed_s = Counter[str](), start_s
        count_writes(audit)
        while finished < tasks:
            if created < tasks and created - finished <= WINDOW - BATCH:
                await create_all(lab.client, TASKS, _build_batch(created))
                created += BATCH
            else:
                await asyncio.sleep(POLL_S)
            writes.update(count_writes(audit))
            before, counts = finished, await read_metrics(lab.health_url, FINISHED, LEARNED)
            finished = round(counts[FINISHED])
            changed_s = time.monotonic() if finished > before else changed_s
            if time.monotonic() > changed_s + PATIENCE_S:
                raise RuntimeError(f"none of {created - finished} tasks has finished for {PATIENCE_S:g} s")
            if finished // SAMPLE_TASKS > before // SAMPLE_TASKS:
                pid, span_s = lab.operator.pid or 0, time.monotonic() - start_s
                spent_s = cpu_s(pid) - cpu_before_s
                self._note(Sample(finished, round(counts[LEARNED]), span_s, spent_s, memory_mib(pid), dict(writes)))

    def _note(self, sample: Sample) -> None:
        self.samples.append(sample)
        with (self.folder / "samples.jsonl").open("ab") as file:
            file.write(orjson.dumps(asdict(sample), option=orjson.OPT_APPEND_NEWLINE))
        self.say(
            f"{sample.tasks} tasks, {sample.learned} learned, after {sample.span_s:.0f} s; "
            f"{sample.memory_mib:.0f} MiB, {1e3 * sample.cpu_s / sample.tasks:.1f} ms of CPU and "
            f"{sum(sample.writes.values()) / sample.tasks:.2f} writes a task"
        )


def summarize(samples: Sequence[Sample]) -> list[Row]:
    """Return how flat time, processor time and memory are, and the writes of a task; from two samples on."""
    steps = list(itertools.pairwise(samples))
    tenth = max(len(steps) // 10, 1)
    ends = steps[:tenth], steps[-tenth:]
    last = samples[-1]
    tasks, memory = [one.tasks / 1000 for one in samples], [one.memory_mib for one in samples]
    slope = float(np.polyfit(tasks, memory, 1)[0])
    detail = "first and last tenth"
    return [
        Row("time per task", [1e3 * _per_task(one, "span_s") for one in ends], "ms", "flat", detail),
        Row("operator CPU per task", [1e3 * _per_task(one, "cpu_s") for one in ends], "ms", "<= 8, flat", detail),
        Row("operator memory", memory, "MiB", "flat", f"{slope:+.3f} MiB per 1,000 tasks"),
        Row("outcomes learned", [last.learned], "", "all", f"of {last.tasks} tasks, the last ones may follow"),
        *summarize_writes(last.writes, last.tasks),
    ]


def _per_task(steps: Sequence[tuple[Sample, Sample]], field: str) -> float:
    first, last = steps[0][0], steps[-1][1]
    spent: float = getattr(last, field) - getattr(first, field)
    return spent / (last.tasks - first.tasks)


def _build_batch(number: int) -> list[dict[str, object]]:
    bodies = build_tasks(f"soak-{number}", BATCH)
    for body in bodies:
        body["spec"]["ttlAfterFinished"] = TTL
    return bodies


if __name__ == "__main__":
    sys.exit(main())
