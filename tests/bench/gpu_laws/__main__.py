"""Measures on one NVIDIA GPU the laws of time and energy that the simulator assumes.

    PYTHONPATH=tests:operator python3 -m bench.gpu_laws --out laws.json

Needs Linux, a GPU that nobody else uses, and a Python with PyTorch, nvidia-ml-py and numpy; PerLLM itself needs no
PyTorch. It takes about five minutes, a served load (`--parts load`) as many more. docs/measured-gpu.md says what is
measured and how, and `python -m bench.gpu_laws.judge` compares a served load with what PerLLM expects.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.gpu_laws.shapes import SHAPES

if TYPE_CHECKING:
    from bench.gpu_laws.meter import Recorder

NEEDED = {"torch": "torch", "pynvml": "nvidia-ml-py", "numpy": "numpy"}
PARTS = ("decoding", "reading", "meters", "mixed", "load")
IDLE_S = 6.0
FIGURES = ("batch", "context", "prompt", "once_s", "token_s", "token_j", "power_w", "clock_mhz", "temperature_c")


def main() -> None:
    """Measure, and write what was found after each part, so that a failure loses only what follows."""
    options = _parse()
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"Missing Python packages: {', '.join(missing)}. Install them where the GPU is.")
    os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(options.gpu)}
    _measure(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the results (JSON)")
    parser.add_argument("--readings", type=Path, help="file for all readings of the meters (CSV)")
    parser.add_argument("--load-folder", type=Path, help="folder for the tasks and passes of a served load (CSV)")
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU, as nvidia-smi counts")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b", help="sizes of the model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1], help="what to measure, in this order")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each point is measured")
    parser.add_argument("--loads", nargs="+", type=float, default=(0.3, 0.6, 0.9), help="as shares of the capacity")
    parser.add_argument("--load-seconds", type=float, default=75.0, help="how long tasks arrive at each load")
    parser.add_argument("--every", type=float, default=0.01, help="seconds between readings of the meters")
    options = parser.parse_args()
    if "load" in options.parts and options.load_folder is None:
        parser.error("the part load needs --load-folder")
    return options


def _measure(options: argparse.Namespace) -> None:
    import torch

    from bench.gpu_laws import parts
    from bench.gpu_laws.arrivals import LoadPlan
    from bench.gpu_laws.decoder import Decoder
    from bench.gpu_laws.load import measure_load
    from bench.gpu_laws.meter import Meter, Recorder
    from bench.gpu_laws.stopwatch import Stopwatch

    meter = Meter(options.gpu, time.perf_counter)
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA GPU here.")
    if meter.count_users():
        sys.exit("Other processes use this GPU; what they draw would be measured too.")
    idle_w: dict[str, float] = {}
    results: dict[str, Any] = {
        "environment": meter.describe() | {"torch": torch.__version__, "cuda": torch.version.cuda},
        "options": {name: str(value) for name, value in vars(options).items()},
        "idle_w": idle_w,
    }
    with Recorder(meter, every_s=options.every) as recorder:
        watch = Stopwatch(recorder, meter, time.perf_counter, for_s=options.seconds)
        try:
            idle_w["no context"] = watch.rest(IDLE_S)
            torch.zeros(1, device="cuda")
            idle_w["context"] = watch.rest(IDLE_S)
            decoder = Decoder(SHAPES[options.shape])
            torch.cuda.synchronize()
            idle_w["weights loaded"] = watch.rest(IDLE_S)
            plan = LoadPlan(options.load_folder, options.loads, options.load_seconds)
            measures: dict[str, Callable[[Stopwatch, Decoder], dict[str, Any]]] = {
                "decoding": parts.measure_decoding,
                "reading": parts.measure_reading,
                "meters": parts.measure_meters,
                "mixed": parts.measure_mixed,
                "load": partial(measure_load, plan=plan),
            }
            for name in options.parts:
                results[name] = measures[name](watch, decoder)
                options.out.write_text(json.dumps(results, indent=1))
                print(f"{name}: measured", *_list_figures(results[name]), sep="\n", flush=True)
                _write_readings(recorder, options.readings)
        finally:
            _write_readings(recorder, options.readings)


def _write_readings(recorder: "Recorder", file: Path | None) -> None:
    if file:
        recorder.write(file)


def _list_figures(part: dict[str, Any]) -> list[str]:
    """Return the figures that docs/measured-gpu.md has of each row, to be compared with those of another GPU."""
    return ["  ".join(_name_figures(row)) for row in part.get("rows", ())]


def _name_figures(row: dict[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict) and "once_s" in value:
            yield f"{name} {value['once_s']:.5g} s {value['energy_j']:.5g} J"
        elif name in FIGURES:
            yield f"{name} {value:.5g}"


if __name__ == "__main__":
    main()
