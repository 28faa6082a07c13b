"""A served load: tasks arrive as in conversations, and an engine on the GPU reads and writes as fast as it can."""

import time
from typing import Any

import numpy as np

from bench.gpu_laws.arrivals import LENGTHS, LoadPlan, draw_arrivals, find_capacity_per_s
from bench.gpu_laws.decoder import Decoder
from bench.gpu_laws.engine import Engine, serve
from bench.gpu_laws.load_record import PASSES, TASKS, append_rows
from bench.gpu_laws.served_passes import SIZES, ServedPasses
from bench.gpu_laws.stopwatch import Stopwatch

CONTEXT = LENGTHS.prompt_max + LENGTHS.output_max
REST_S = 8.0
"""Nothing runs as long before and after each load."""

USUAL_BATCH = 48
REPEATS = 20


def measure_load(watch: Stopwatch, decoder: Decoder, plan: LoadPlan) -> dict[str, Any]:
    """Serve each load and record it."""
    passes = ServedPasses(decoder, context=CONTEXT)
    error = passes.check()
    usual = draw_arrivals(100.0, 100.0, plan.seed)
    prompt = float(np.mean([one.prompt_tokens for one in usual]))
    output = float(np.mean([one.output_tokens for one in usual]))
    read_s, iteration_s = _time_passes(watch, passes, round(prompt), round(prompt + output / 2))
    found = {
        "attention_error": error,
        "mean_prompt": prompt,
        "mean_output": output,
        "read_s": read_s,
        "iteration_s": iteration_s,
        "capacity_per_s": find_capacity_per_s(read_s, iteration_s, USUAL_BATCH, output),
    }
    _print(found)
    rows = [_serve(watch, passes, plan, load, load * found["capacity_per_s"]) for load in plan.loads]
    return {**found, "rows": rows}


def _time_passes(watch: Stopwatch, passes: ServedPasses, prompt: int, context: int) -> tuple[float, float]:
    """Return the seconds of the usual prompt and of the usual iteration, after the largest ones as a warm-up."""
    most = max(SIZES)
    passes.read(0, LENGTHS.prompt_max)
    passes.iterate(range(most), [CONTEXT] * most)
    batch, contexts = range(USUAL_BATCH), [context] * USUAL_BATCH
    start_s = watch.clock()
    for _ in range(REPEATS):
        passes.read(0, prompt)
    read_s = watch.clock()
    for _ in range(REPEATS):
        passes.iterate(batch, contexts)
    return (read_s - start_s) / REPEATS, (watch.clock() - read_s) / REPEATS


def _serve(watch: Stopwatch, passes: ServedPasses, plan: LoadPlan, load: float, rate_per_s: float) -> dict[str, float]:
    idle_w = watch.rest(REST_S)
    arrivals = draw_arrivals(rate_per_s, plan.for_s, plan.seed + round(100 * load))
    engine = Engine(passes, watch.clock, max(SIZES))
    start_s = watch.clock()
    serve(engine, arrivals, time.sleep)
    end_s = watch.clock()
    watch.rest(REST_S)
    tasks = sorted(engine.ended, key=lambda task: task.number)
    append_rows(plan.folder / TASKS, load, tasks)
    append_rows(plan.folder / PASSES, load, engine.log)
    row = {
        "load": load,
        "rate_per_s": rate_per_s,
        "tasks": len(tasks),
        "idle_w": idle_w,
        "start_s": start_s,
        "end_s": end_s,
        "busy": sum(one.end_s - one.start_s for one in engine.log) / (end_s - start_s),
        "latency_s": float(np.median([task.ended_s - task.arrived_s for task in tasks])),
        "mean_batch": float(np.mean([one.tasks for one in engine.log if one.reader < 0])),
    }
    _print(row)
    return row


def _print(figures: dict[str, float]) -> None:
    print("load:", "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
