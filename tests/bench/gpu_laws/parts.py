"""The parts of the measurement: decoding, reading, both at once, and how meters follow a load."""

import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from bench.gpu_laws.decoder import Decoder, Pass
from bench.gpu_laws.fits import fit_relative
from bench.gpu_laws.readings import Readings, find_interval_s, find_rise_s, mean_power_w
from bench.gpu_laws.scrapes import SOURCES, describe_run, describe_window
from bench.gpu_laws.stopwatch import Stopwatch

Table = dict[str, Any]

CONTEXT = 1000
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
OTHERS = ((16, 256), (16, 4000), (64, 256), (64, 4000), (256, CONTEXT))
PROMPTS = (128, 256, 512, 1024, 2048, 8192)
MIXED_BATCH = 16
MIXED_PROMPTS = (512, 2048)
DECODES_PER_PROMPT = 50
RUNS_S = (10.0, 2.0, 0.5)
REST_S = 20.0


def measure_decoding(watch: Stopwatch, decoder: Decoder) -> Table:
    """Measure iterations at each batch, and at other contexts and a larger batch."""
    rows = []
    for tasks, context in (*((tasks, CONTEXT) for tasks in BATCHES), *OTHERS):
        steady = watch.measure(Pass(decoder, tasks=tasks, context=context).capture())
        per_token = {"token_j": steady.energy_j / tasks}
        rows.append({"batch": tasks, "context": context, **asdict(steady), **per_token})
        torch.cuda.empty_cache()
    return {"rows": rows, "fits": _fit_decoding(rows)}


def measure_reading(watch: Stopwatch, decoder: Decoder) -> Table:
    """Measure prompts that are read one after the other while nothing decodes."""
    rows = []
    for prompt in PROMPTS:
        steady = watch.measure(Pass(decoder, prompt=prompt).capture())
        per_token = {"token_s": steady.once_s / prompt, "token_j": steady.energy_j / prompt}
        rows.append({"prompt": prompt, **asdict(steady), **per_token})
        torch.cuda.empty_cache()
    tokens = np.array([row["prompt"] for row in rows], dtype=np.float64)
    law = fit_relative([1.0, tokens, tokens**2], [row["once_s"] for row in rows])
    return {"rows": rows, "fits": {"a + b n + c n^2, s": asdict(law)}}


def measure_mixed(watch: Stopwatch, decoder: Decoder) -> Table:
    """Measure a prompt that arrives while a batch decodes: between iterations, in one pass, on a stream of its own."""
    decode = Pass(decoder, tasks=MIXED_BATCH, context=CONTEXT).capture()
    table: Table = {"batch": MIXED_BATCH, "decode": asdict(watch.measure(decode)), "rows": []}
    for prompt in MIXED_PROMPTS:
        read = Pass(decoder, prompt=prompt).capture()
        both = Pass(decoder, tasks=MIXED_BATCH, context=CONTEXT, prompt=prompt).capture()
        row = {
            "prompt": prompt,
            "decodes_per_prompt": DECODES_PER_PROMPT,
            "read": asdict(watch.measure(read)),
            "one_pass": asdict(watch.measure(both)),
            "between_iterations": asdict(watch.measure(_alternate(decode, read))),
            "own_stream": _overlap(decode, read),
        }
        table["rows"].append(row)
    return table


def measure_meters(watch: Stopwatch, decoder: Decoder) -> Table:
    """Measure how counter and gauges follow runs of some seconds with rests between them."""
    decode = Pass(decoder, tasks=MIXED_BATCH, context=CONTEXT).capture()
    watch.repeat(decode, for_s=0.1, chunk=1)
    rests = [_rest(watch)]
    windows = []
    for run_s in RUNS_S:
        start_s = watch.clock()
        watch.repeat(decode, for_s=run_s, chunk=5)
        windows.append((start_s, watch.clock()))
        rests.append(_rest(watch))
    readings = watch.recorder.readings()
    return {
        "rests": rests,
        "runs": [describe_run(readings, window) for window in windows],
        "whole": describe_window(readings, (windows[0][0] - REST_S / 4, windows[-1][1] + REST_S / 4)),
        **_describe_steps(readings, windows[0]),
    }


def _fit_decoding(rows: list[Table]) -> Table:
    batch, context, once_s, token_j = (
        np.array([row[name] for row in rows], dtype=np.float64) for name in ("batch", "context", "once_s", "token_j")
    )
    plain = (context == CONTEXT) & np.isin(batch, BATCHES)
    laws = {
        "a + b B, s": fit_relative([1.0, batch[plain]], once_s[plain]),
        "e0 + e1 / B, J": fit_relative([1.0, 1.0 / batch[plain]], token_j[plain]),
        "a + b B + c B context, s": fit_relative([1.0, batch, batch * context], once_s),
        "e0 + e1 / B + e2 context, J": fit_relative([1.0, 1.0 / batch, context], token_j),
    }
    return {law: asdict(fit) for law, fit in laws.items()}


def _alternate(decode: Callable[[], object], read: Callable[[], object]) -> Callable[[], None]:
    def launch() -> None:
        read()
        for _ in range(DECODES_PER_PROMPT):
            decode()

    return launch


def _overlap(decode: Callable[[], object], read: Callable[[], object]) -> Table:
    """Read one prompt on a second stream while the first one decodes; returns milliseconds of all iterations."""
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(DECODES_PER_PROMPT + 1)]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    arrives = 10
    torch.cuda.synchronize()
    with torch.cuda.stream(first):
        for number, mark in enumerate(marks):
            mark.record()
            if number == arrives:
                second.wait_event(mark)
                with torch.cuda.stream(second):
                    begin.record()
                    read()
                    end.record()
            decode()
    torch.cuda.synchronize()
    return {
        "arrives_before": arrives,
        "iterations_ms": [one.elapsed_time(other) for one, other in itertools.pairwise(marks)],
        "read_ms": begin.elapsed_time(end),
    }


def _rest(watch: Stopwatch) -> Table:
    start_s = watch.clock()
    watch.rest(REST_S)
    readings = watch.recorder.readings()
    seconds = [(start_s + after, start_s + after + 2.0) for after in np.arange(0.0, REST_S - 1.0, 2.0)]
    return {"start_s": start_s, "each_2s_w": [mean_power_w(readings, *span) for span in seconds]}


def _describe_steps(readings: Readings, window: tuple[float, float]) -> Table:
    start_s, end_s = window
    loaded = readings.between(start_s, end_s)
    step = readings.between(start_s - 2.0, end_s)
    return {
        "changes_every_s": {name: find_interval_s(loaded.time_s, getattr(loaded, name)) for name in SOURCES},
        "rise_s": {
            name: {
                f"{share:.0%}": find_rise_s(step.time_s, getattr(step, name), start_s, share=share)
                for share in (0.1, 0.5, 0.9)
            }
            for name in SOURCES[1:]
        },
    }
