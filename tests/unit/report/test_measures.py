from collections.abc import Callable

import pytest

from perllm_lab.report.measures import measure
from perllm_lab.simulator.result import Fate, RunResult

IN, LATE, REFUSED, DROPPED, ENDED = Fate.IN_TIME, Fate.LATE, Fate.REFUSED, Fate.DROPPED, Fate.ENDED

Builder = Callable[..., RunResult]


def test_goodput_is_tasks_in_time_per_second_of_the_window(build_run: Builder) -> None:
    found = measure(build_run([IN, IN, LATE, IN, REFUSED], window_s=(1.0, 4.0)))
    assert (found.tasks, found.window_s) == (4, 3.0)
    assert found.goodput_per_s == pytest.approx(2 / 3)
    assert found.hit_share == 0.5
    assert found.completed_share == 0.75


def test_dropping_the_long_tasks_shows_in_the_token_share(build_run: Builder) -> None:
    found = measure(build_run([IN, IN, DROPPED], output_tokens=[10, 10, 150]))
    assert found.hit_share == pytest.approx(2 / 3)
    assert found.token_hit_share == pytest.approx(40 / 200)


def test_only_completed_tasks_have_latency_and_tokens(build_run: Builder) -> None:
    found = measure(build_run([IN, LATE, ENDED], latency_s=[1.0, 9.0, 99.0]))
    assert found.latency_p50_s == 5.0
    assert found.tokens_per_s == 20 / 2.0


def test_fleet_energy_is_inference_idle_and_transmission(build_run: Builder) -> None:
    found = measure(build_run([IN, IN, IN, LATE], transmission_j=10.0))
    assert (found.transmission_j, found.inference_j, found.idle_j) == (40.0, 270.0, 130.0)
    assert found.fleet_energy_j == 440.0
    assert found.fleet_j_per_hit == pytest.approx(440 / 3)
    assert found.active_j_per_hit == pytest.approx(310 / 3)


def test_transmission_counts_when_the_task_was_bound_in_the_window(build_run: Builder) -> None:
    found = measure(build_run([IN, IN, IN, IN], node=[0, 0, 0, -1], window_s=(1.0, 3.0), transmission_j=10.0))
    assert found.transmission_j == 20.0


def test_nothing_in_time_leaves_energy_per_task_undefined(build_run: Builder) -> None:
    found = measure(build_run([REFUSED, REFUSED], node=[-1, -1]))
    assert found.fleet_j_per_hit is None
    assert found.latency_p50_s is None
    assert found.explored_share is None
    assert found.tiers["edge"].placed_share is None


def test_tasks_and_energy_go_to_the_tier_and_gpu_type_of_their_node(build_run: Builder) -> None:
    found = measure(build_run([IN, IN, LATE, REFUSED], node=[0, 1, 1, -1], transmission_j=1.0))
    edge, cloud = found.tiers["edge"], found.gpu_types["H100"]
    assert (edge.tasks, edge.hits, edge.energy_j) == (1, 1, 301.0)
    assert (cloud.tasks, cloud.hits, cloud.energy_j) == (2, 1, 102.0)
    assert found.nodes == {"near": pytest.approx(1 / 3), "far": pytest.approx(2 / 3)}


def test_first_placements_of_a_gpu_type_count_before_the_window_too(build_run: Builder) -> None:
    fates = [IN, *[LATE] * 10, *[IN] * 10, *[LATE] * 5]
    found = measure(build_run(fates, node=[0, *[1] * 25], window_s=(20.0, 25.0))).gpu_types["H100"]
    assert found.first_placed_s == 1.0
    assert found.first_hit_share == 0.5


def test_misses_while_learning_are_those_of_the_first_500_tasks(build_run: Builder) -> None:
    found = measure(build_run([LATE] * 30 + [IN] * 470 + [LATE] * 250 + [IN] * 750, window_s=(300.0, 1499.0)))
    assert found.learning_misses == 30
    assert found.settled_ratio == 0.5


def test_decisions_are_timed_in_milliseconds(build_run: Builder) -> None:
    assert measure(build_run([IN, IN])).decision_p50_ms == pytest.approx(2.0)


def test_fates_add_up_to_the_judged_tasks(build_run: Builder) -> None:
    found = measure(build_run([IN, LATE, REFUSED, DROPPED, ENDED, Fate.UNFINISHED]))
    assert set(found.fates.values()) == {1}
    assert sum(found.fates.values()) == found.tasks


def test_an_empty_window_is_refused(build_run: Builder) -> None:
    with pytest.raises(ValueError, match="run more tasks"):
        measure(build_run([IN]))
