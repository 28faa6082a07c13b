import numpy as np
from numpy.testing import assert_allclose

from perllm.placement.node_queues import NodeQueues

ROWS = np.arange(2)


def waiting(**tasks: int) -> NodeQueues:
    """Return queues in which so many tasks of each namespace wait for node 1, each of 2 GPU seconds."""
    queues = NodeQueues()
    for namespace, count in tasks.items():
        for number in range(count):
            queues.put(f"{namespace}-{number}", 1, slots=1.0, work_s=2.0, namespace=namespace)
    return queues


def test_all_of_its_own_namespace_go_before_a_task() -> None:
    assert_allclose(waiting(a=5).before(ROWS, "a"), [[0, 5], [0, 10]])


def test_of_another_namespace_one_goes_before_the_first_task() -> None:
    assert_allclose(waiting(a=1000).before(ROWS, "b"), [[0, 1], [0, 2]])


def test_of_others_as_many_go_before_as_of_its_own() -> None:
    assert_allclose(waiting(a=1000, b=3, c=1000).before(ROWS, "b"), [[0, 3 + 2 * 4], [0, 2 * (3 + 2 * 4)]])


def test_no_more_go_before_than_there_are() -> None:
    assert_allclose(waiting(a=2, b=10).before(ROWS, "b"), [[0, 12], [0, 24]])


def test_one_that_stops_waiting_or_waits_elsewhere_is_counted_there_no_more() -> None:
    queues = waiting(a=2)
    queues.remove("a-0")
    queues.remove("unknown")
    queues.put("a-1", 0, slots=2.0, work_s=3.0, namespace="a")
    assert_allclose(queues.before(ROWS, "b"), [[2, 0], [3, 0]])
