"""A long run as a sequence of parts, each on a lab of its own, so that it can be interrupted, resumed and repeated."""

import itertools
import shutil
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from e2e.chaos.experiment import ChaosExperiment
from e2e.chaos.findings import ChaosFindings, ChunkFindings, abandon
from e2e.chaos.plan import Fault, plan_faults
from e2e.chaos.rig import NAMESPACES, SCENARIO, SPEED, open_rig
from e2e.chaos.workload import Order, plan_tasks
from e2e.command import Say
from perllm.api.task_status import RunsAs
from perllm_lab.workload.scenarios import load_scenario

CHUNK_FAULTS = 25
FINDINGS = "findings.jsonl"
# Large, and of no use afterwards.
DATA = ("kubernetes/etcd", "prometheus/data")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part of a campaign: what is injected, and what is created meanwhile."""

    number: int
    faults: Sequence[Fault]
    orders: Sequence[Order]
    runs_as: RunsAs


def plan_chunks(seed: int, faults: int, tasks: int, runs_as: RunsAs = RunsAs.POD) -> list[Chunk]:
    """Return the parts of a campaign with about so many faults and tasks; none depends on those before it."""
    scenario, rng = load_scenario(SCENARIO), Random(seed)
    planned = itertools.islice(plan_faults(rng, [node.name for node in scenario.nodes()], runs_as), faults)
    chunks: list[Chunk] = []
    while chosen := list(itertools.islice(planned, CHUNK_FAULTS)):
        over_s, number = sum(fault.pause_s for fault in chosen), len(chunks)
        count = round(tasks * len(chosen) / faults)
        orders = plan_tasks(
            scenario, NAMESPACES, count, over_s=over_s, speed=SPEED, seed=[seed, number], runs_as=runs_as
        )
        chunks.append(Chunk(number, chosen, orders, runs_as))
    return chunks


async def run_chunk(chunk: Chunk, binaries: Mapping[str, Path], folder: Path, say: Say) -> ChunkFindings:
    """Run one part in a folder without files of an earlier lab."""
    async with open_rig(binaries, folder, chunk.runs_as) as rig:
        return await ChaosExperiment(rig, chunk.faults, chunk.orders, say).run(chunk.number)


async def run_campaign(chunks: Sequence[Chunk], binaries: Mapping[str, Path], folder: Path, say: Say) -> ChaosFindings:
    """Run the parts for which the folder holds no findings yet; return those of all.

    The files of a part are kept if there are problems.
    """
    file = folder / FINDINGS
    done = [ChunkFindings.from_line(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    known = {one.chunk for one in done}
    for chunk in chunks:
        if chunk.number in known:
            continue
        part = folder / f"part-{chunk.number}"
        shutil.rmtree(part, ignore_errors=True)
        say(f"part {chunk.number}: {len(chunk.faults)} faults, {len(chunk.orders)} tasks")
        try:
            findings = await run_chunk(chunk, binaries, part, say)
        except Exception as error:
            traceback.print_exception(error)
            findings = abandon(chunk.number, f"it could not be completed: {error!r}")
        with file.open("ab") as lines:
            lines.write(findings.to_line())
        done.append(findings)
        for name in DATA if findings.problems else ("",):
            shutil.rmtree(part / name, ignore_errors=True)
    return ChaosFindings(done)
