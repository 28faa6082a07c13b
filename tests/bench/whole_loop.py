"""Tasks per second through everything: creation, decision, binding, run, measured energy, learned outcome."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import yaml

from bench.cluster import CpuUse, clear, create_all, describe_cpu, peak_memory_mib, read_metric, wait_until
from bench.fleets import TASKS, build_scenario, build_tasks
from bench.tables import Row
from bench.write_counts import count_writes, summarize_writes
from e2e.audit import AuditLog, record_writes_of
from perllm_lab.hardware.scenario import Scenario
from perllm_lab.installation import OPERATOR_USER
from perllm_lab.lab import Lab, LabSettings

COUNT = 500
SPEED = 20.0
LEARNED = "perllm_outcomes_learned_total"


async def measure_loop(
    binaries: Mapping[str, Path], nodes: int, rounds: int, folder: Path, say: Callable[[str], None]
) -> list[Row]:
    """Return throughput of the whole loop, and what the operator needed for it."""
    scenario = build_scenario(nodes)
    file = write_scenario(scenario, folder)
    rates, cpu_shares, operator_cpu_s, note = [], [], [], ""
    audit, writes = AuditLog(folder / "audit", record_writes_of(OPERATOR_USER)), Counter[str]()
    settings = LabSettings(str(file), SPEED, flags={"kube-apiserver": audit.flags})
    async with Lab(binaries, scenario, folder, settings) as lab:
        for number in range(rounds):
            count_writes(audit)
            start_s, cpu = time.monotonic(), CpuUse(find_pids(lab))
            await _run(lab, number)
            span_s, spent_s = time.monotonic() - start_s, cpu.spent_s()
            rates.append(COUNT / span_s)
            operator_cpu_s.append(spent_s["operator"])
            cpu_shares.append(sum(spent_s.values()) / span_s / (os.cpu_count() or 1))
            note = describe_cpu(spent_s, COUNT)
            say(f"loop: round {number + 1}, {COUNT} tasks in {span_s:.1f} s; {note}")
            await clear(lab.client)
            writes += count_writes(audit)
        memory_mib = peak_memory_mib(lab.operator.pid or 0)
    what = f"{COUNT} tasks at once on {nodes} simulated nodes"
    return [
        Row(f"whole loop, {what}, created to learned", rates, "tasks/s", ">= 25/s", note),
        Row("operator CPU for them", operator_cpu_s, "s", "", f"{median(operator_cpu_s) / COUNT * 1e3:.0f} ms a task"),
        Row("processors in use meanwhile", [100 * share for share in cpu_shares], "%", "", f"of {os.cpu_count()}"),
        Row("operator memory, peak RSS", [memory_mib], "MiB", "", f"after {rounds * COUNT} tasks"),
        *summarize_writes(writes, rounds * COUNT),
    ]


def write_scenario(scenario: Scenario, folder: Path) -> Path:
    """Write a scenario to a file in a folder, as a lab reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(scenario.model_dump(mode="json")), encoding="utf-8")
    return file


async def _run(lab: Lab, number: int) -> None:
    before = await read_metric(lab.health_url, LEARNED)
    await create_all(lab.client, TASKS, build_tasks(f"round-{number}", COUNT))

    async def all_learned() -> bool:
        return await read_metric(lab.health_url, LEARNED) - before >= COUNT

    await wait_until(all_learned, f"{COUNT} outcomes are learned")


def find_pids(lab: Lab) -> dict[str, int]:
    """Return the processes of a lab by what they are."""
    processes = {
        **lab.control_plane.processes,
        "operator": lab.operator,
        "simulated nodes": lab.nodes,
        "prometheus": lab.prometheus.process,
        **({"agents": lab.agents} if lab.settings.has_agents else {}),
    }
    return {name: process.pid for name, process in processes.items() if process.pid is not None}
