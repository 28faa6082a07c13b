"""Measures on one NVIDIA GPU the laws of time and energy that the simulator assumes.

    PYTHONPATH=tests python3 -m bench.gpu_laws --out laws.json

Needs Linux, a GPU that nobody else uses, and a Python with PyTorch, nvidia-ml-py and numpy; PerLLM itself needs no
PyTorch. It takes about five minutes. docs/measured-gpu.md says what is measured and how.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu_laws.shapes import SHAPES

NEEDED = {"torch": "torch", "pynvml": "nvidia-ml-py", "numpy": "numpy"}
PARTS = ("decoding", "reading", "meters", "mixed")
IDLE_S = 6.0


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
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU, as nvidia-smi counts")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b", help="sizes of the model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure, in this order")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each point is measured")
    parser.add_argument("--every", type=float, default=0.01, help="seconds between readings of the meters")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> None:
    import torch

    from bench.gpu_laws import parts
    from bench.gpu_laws.decoder import Decoder
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
            for name in options.parts:
                results[name] = getattr(parts, f"measure_{name}")(watch, decoder)
                options.out.write_text(json.dumps(results, indent=1))
                print(f"{name}: measured", flush=True)
        finally:
            if options.readings:
                recorder.write(options.readings)


if __name__ == "__main__":
    main()
