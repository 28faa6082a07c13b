from itertools import islice
from random import Random

from e2e.chaos.plan import PROCESSES, FaultKind, plan_faults

NODES = ("edge-0", "cloud-0")


def test_the_same_seed_gives_the_same_faults():
    first, second = (list(islice(plan_faults(Random(7), NODES), 100)) for _ in range(2))
    assert first == second
    assert first != list(islice(plan_faults(Random(8), NODES), 100))


def test_every_kind_has_a_turn_on_every_process_before_any_has_a_second_one():
    faults = list(islice(plan_faults(Random(7), NODES), 33))
    assert {fault.kind for fault in faults} == set(FaultKind)
    turns = [(fault.kind, fault.target) for fault in faults if fault.target in PROCESSES]
    assert sorted(turns) == sorted({*turns})
    assert len(turns) == 3 * len(PROCESSES)
