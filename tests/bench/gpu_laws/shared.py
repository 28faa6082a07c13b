"""Measures how model servers slow each other down that share one NVIDIA GPU.

    PYTHONPATH=tests:operator python3 -m bench.gpu_laws.shared --out shared.json

Each model has a process of its own, as two model servers have, and the driver divides the time among them. What
`python3 -m bench.gpu_laws` needs is needed here too. It takes about five minutes.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.gpu_laws.shared_laws import compare, find_alone
from bench.gpu_laws.shared_loads import Load, Order, Span, describe_passes, divide
from bench.gpu_laws.shared_plan import PLAN, SMOKE
from bench.gpu_laws.shared_process import ServingProcess

if TYPE_CHECKING:
    from bench.gpu_laws.meter import Meter, Recorder

WARM_S = 0.6
BEGIN_IN_S = 0.05
IDLE_S = 3.0

Table = dict[str, Any]


def main() -> None:
    """Measure, and write what was found after each point."""
    options = _parse()
    os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(options.gpu)}
    from bench.gpu_laws.meter import Meter, Recorder

    meter = Meter(options.gpu, time.perf_counter)
    with Recorder(meter, every_s=0.01) as recorder:
        laboratory = Laboratory(meter, recorder, options)
        try:
            for stage in SMOKE if options.smoke else PLAN:
                laboratory.set_up(stage.processes)
                for loads in stage.points:
                    laboratory.measure(loads)
        finally:
            laboratory.set_up(())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the results (JSON)")
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU, as nvidia-smi counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each point is measured")
    parser.add_argument("--smoke", action="store_true", help="measure two points with small models, to see if it works")
    return parser.parse_args()


class Laboratory:
    """The processes on the GPU, and what was measured so far.

    Args:
        meter: Of the GPU.
        recorder: Of the same; it is recording.
        options: Of the command.
    """

    def __init__(self, meter: "Meter", recorder: "Recorder", options: argparse.Namespace) -> None:
        self._meter = meter
        self._recorder = recorder
        self._options = options
        self._processes: list[ServingProcess] = []
        self._rows: list[Table] = []
        self._idle: list[Table] = [{"processes": [], **self._rest()}]

    def set_up(self, processes: Sequence[tuple[str, ...]]) -> None:
        """Have these processes on the GPU and no others, and measure what they draw while nothing runs."""
        missing, kept = list(processes), []
        for one in self._processes:
            if one.shapes in missing:
                missing.remove(one.shapes)
                kept.append(one)
            else:
                one.stop()
        new = [ServingProcess(shapes) for shapes in missing]
        self._processes = [*kept, *new]
        for one in new:
            one.receive()
        if new:
            self._idle.append({"processes": list(processes), **self._rest()})
            self._write()

    def measure(self, loads: tuple[Load, ...]) -> None:
        """Have loads done together for a while; what fails is noted."""
        try:
            row = self._measure(loads)
        except RuntimeError as error:
            row = {"loads": loads, "passes": [{}] * len(loads), "error": f"{error}: {error.__cause__}"}
            shapes = [one.shapes for one in self._processes]
            self.set_up(())
            self.set_up(shapes)
        row["one_process"] = len(loads) > 1 and len(self._processes) == 1
        self._rows.append(row)
        print("  ".join(_name_figures(row, compare(row, self._rows))), flush=True)
        self._write()

    def _measure(self, loads: tuple[Load, ...]) -> Table:
        alone = find_alone(self._rows)
        shares = divide([process.shapes for process in self._processes], loads)
        busy = [(process, share) for process, share in zip(self._processes, shares, strict=True) if share]
        for process, share in busy:
            wanted = [loads[number] for number in share]
            periods_s = [load.find_period_s(alone[load.work][0]) if load.duty < 1.0 else 0.0 for load in wanted]
            process.send([Order(*order) for order in zip(wanted, periods_s, strict=True)])
        for process, _ in busy:
            process.receive()
        begin_s = time.perf_counter() + BEGIN_IN_S
        start_s = begin_s + WARM_S
        end_s = start_s + self._options.seconds
        for process, _ in busy:
            process.send((begin_s, end_s + BEGIN_IN_S))
        spans: dict[int, list[Span]] = {}
        for process, share in busy:
            spans |= zip(share, process.receive(), strict=True)
        passes = [describe_passes(load, spans[number], (start_s, end_s)) for number, load in enumerate(loads)]
        return {"loads": loads, "passes": passes, **self._read_meters(start_s, end_s)}

    def _rest(self) -> Table:
        start_s = time.perf_counter()
        time.sleep(IDLE_S)
        used_bytes = self._meter.read_used_bytes()
        return {"used_bytes": used_bytes, **self._read_meters(start_s + IDLE_S / 2, time.perf_counter())}

    def _read_meters(self, start_s: float, end_s: float) -> Table:
        from bench.gpu_laws.readings import mean_power_w

        readings = self._recorder.readings()
        return {
            "power_w": mean_power_w(readings, start_s, end_s),
            "clock_mhz": float(readings.between(start_s, end_s).clock_mhz.mean()),
            "temperature_c": self._meter.read_temperature_c(),
        }

    def _write(self) -> None:
        rows = [
            {
                **row,
                "loads": [asdict(load) for load in row["loads"]],
                "against_alone": compare(row, self._rows),
            }
            for row in self._rows
        ]
        found = {"environment": self._meter.describe(), "idle": self._idle, "rows": rows}
        self._options.out.write_text(json.dumps(found, indent=1))


def _name_figures(row: Table, against: Sequence[dict[str, float]]) -> Iterator[str]:
    yield "one process" if row["one_process"] else ""
    for number, (load, passes) in enumerate(zip(row["loads"], row["passes"], strict=True)):
        what = f"{load.tasks} tasks" if load.tasks else f"{load.prompt} prompt"
        duty = f" duty {load.duty:g} burst {load.burst}" if load.duty < 1.0 else ""
        ahead = f" ahead {load.ahead}" if load.ahead > 1 else f" gap {load.gap_s:g} s" if load.gap_s else ""
        times = "".join(f" {name} {value:.4g}" for name, value in against[number].items()) if against else ""
        spread = " ".join(f"{1e3 * value:.4g}" for name, value in passes.items() if name.startswith("pass_s"))
        yield f"[{load.shape} {what}{duty}{ahead}: ms {spread}{times}]"
    yield f"{row['power_w']:.0f} W {row['clock_mhz']:.0f} MHz" if "power_w" in row else row["error"]


if __name__ == "__main__":
    main()
