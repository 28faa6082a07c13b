"""What model servers on one GPU cost each other, next to what could be expected of them.

With t seconds of a pass where nothing else runs, and t' next to others

    share     t / t', of the GPU; all shares together are 1 if they take turns and that costs nothing
    slices    each of n servers gets an n-th of the time: t' = n t
    turns     a pass of each, one after the other: t' = sum of t
    batch     all tasks as if they wrote in one batch of the own model: t' = a + b (sum of tasks)
    watts     each of n servers draws an n-th of what it draws alone
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.gpu_laws.fits import fit_relative
from bench.gpu_laws.shared_loads import Load

Row = Mapping[str, Any]


def find_alone(rows: Sequence[Row]) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Return the seconds and the watts of each work that was done with nothing next to it."""
    alone: dict[tuple[str, int, int], tuple[float, float]] = {}
    for row in rows:
        (load, *others), passes = row["loads"], row["passes"]
        if not others and load == Load(*load.work) and "pass_s" in passes[0]:
            alone.setdefault(load.work, (passes[0]["pass_s"], row["power_w"]))
    return alone


def fit_batches(alone: Mapping[tuple[str, int, int], tuple[float, float]]) -> dict[str, list[float]]:
    """Return a and b of each model of which several batches were measured."""
    by_shape: dict[str, list[tuple[int, float]]] = {}
    for (shape, tasks, _), (pass_s, _) in alone.items():
        if tasks:
            by_shape.setdefault(shape, []).append((tasks, pass_s))
    return {
        shape: fit_relative([1.0, [tasks for tasks, _ in points]], [pass_s for _, pass_s in points]).coefficients
        for shape, points in by_shape.items()
        if len(points) > 1
    }


def compare(row: Row, rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return, for each load of a row, how many times as long its passes take as alone, and as each law expects."""
    loads: Sequence[Load] = row["loads"]
    alone, laws = find_alone(rows), fit_batches(find_alone(rows))
    if any(load.work not in alone for load in loads):
        return []
    alone_s = [alone[load.work][0] for load in loads]
    tasks = sum(load.tasks for load in loads)
    found = []
    for load, own_s, passes in zip(loads, alone_s, row["passes"], strict=True):
        if "pass_s" not in passes:
            return []
        expected = {
            "alone_s": own_s,
            "times": passes["pass_s"] / own_s,
            "busy": passes["passes_per_s"] * own_s,
            "slices": float(len(loads)),
            "turns": sum(alone_s) / own_s,
            "watts": sum(alone[one.work][1] for one in loads) / len(loads),
        }
        if load.tasks and load.shape in laws:
            solo_s, task_s = laws[load.shape]
            expected["batch"] = (solo_s + task_s * tasks) / own_s
        found.append(expected)
    return found
