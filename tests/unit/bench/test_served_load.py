from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.gpu_laws.arrivals import LENGTHS, draw_arrivals, find_capacity_per_s
from bench.gpu_laws.attributed import COUNTER, GAUGE, attribute_energy
from bench.gpu_laws.engine import Engine, serve
from bench.gpu_laws.forecasts import foresee, settle
from bench.gpu_laws.judge import LEARNED_FROM, Deviations, judge, judge_forecasts
from bench.gpu_laws.load_record import PASSES, READINGS, TASKS, LoadRecord, append_rows, read_record
from bench.gpu_laws.readings import Readings
from bench.gpu_laws.shares import share_passes
from bench.gpu_laws.simulated import simulate_load
from perllm_lab.hardware.server_gpus import H100
from perllm_lab.workload.arrivals import Arrival
from unit.bench.fake_gpu import IDLE_W, READING_W, WRITING_W, FakeGpu, serve_load

READ_S, ITERATION_S = 0.1, 0.01


class PlainGpu(FakeGpu):
    """Every prompt takes as long, and every iteration."""

    def __init__(self) -> None:
        super().__init__(now_s=0.0)
        self.asked: list[tuple[list[int], list[int]]] = []

    def read(self, slot: int, tokens: int) -> None:
        self._work(READ_S, READING_W)

    def iterate(self, slots: Sequence[int], contexts: Sequence[int]) -> None:
        self.asked.append((list(slots), list(contexts)))
        self._work(ITERATION_S, WRITING_W)


def run(arrivals: Sequence[Arrival], slots: int = 2) -> tuple[PlainGpu, Engine]:
    gpu = PlainGpu()
    engine = Engine(gpu, gpu.clock, slots)
    serve(engine, arrivals, gpu.sleep)
    return gpu, engine


@pytest.fixture(scope="module")
def load() -> tuple[LoadRecord, dict[int, float]]:
    return serve_load(10.0, 20.0)


def test_arrivals_have_their_rate_and_fit_into_a_slot() -> None:
    drawn = draw_arrivals(20.0, 50.0, seed=3)
    assert len(drawn) == pytest.approx(1000, rel=0.1)
    assert drawn[-1].at_s < 50.0
    assert max(one.prompt_tokens for one in drawn) <= LENGTHS.prompt_max
    assert max(one.output_tokens for one in drawn) <= LENGTHS.output_max
    assert drawn == draw_arrivals(20.0, 50.0, seed=3) != draw_arrivals(20.0, 50.0, seed=4)


def test_the_capacity_is_that_of_reading_and_of_a_share_of_the_iterations() -> None:
    assert find_capacity_per_s(0.03, 0.01, 50, 100.0) == pytest.approx(20.0)


def test_reading_a_prompt_brings_the_first_token_and_each_iteration_another_one() -> None:
    gpu, engine = run([Arrival(0.5, prompt_tokens=7, output_tokens=3)])
    (task,) = engine.ended
    assert (task.arrived_s, task.read_s) == pytest.approx((0.5, 0.5))
    assert task.first_token_s == pytest.approx(0.5 + READ_S)
    assert task.ended_s == pytest.approx(0.5 + READ_S + 2 * ITERATION_S)
    assert gpu.asked == [([0], [8]), ([0], [9])]
    assert [(one.reader, one.tasks, one.tokens) for one in engine.log] == [(0, 1, 7), (-1, 1, 8), (-1, 1, 9)]


def test_a_task_of_one_token_ends_when_it_has_been_read() -> None:
    _, engine = run([Arrival(0.0, 7, 1)])
    assert engine.ended[0].ended_s == engine.ended[0].first_token_s == pytest.approx(READ_S)


def test_a_prompt_goes_before_the_next_iteration_of_others() -> None:
    _, engine = run([Arrival(0.0, 7, 5), Arrival(0.105, 9, 5)])
    assert [one.reader for one in engine.log][:4] == [0, -1, 1, -1]
    assert engine.log[3].tasks == 2


def test_a_task_waits_for_a_slot_and_takes_that_of_one_that_has_ended() -> None:
    _, engine = run([Arrival(0.0, 7, 3), Arrival(0.0, 7, 20), Arrival(0.0, 7, 2)])
    first, third, second = engine.ended
    assert (first.number, third.number, second.number) == (0, 2, 1)
    assert third.slot == first.slot != second.slot
    assert third.read_s == first.ended_s
    assert third.arrived_s == 0.0


def test_a_record_is_read_back_by_load(tmp_path: Path, load: tuple[LoadRecord, dict[int, float]]) -> None:
    record, _ = load
    append_rows(tmp_path / TASKS, 0.5, record.tasks[:5])
    append_rows(tmp_path / TASKS, 0.9, record.tasks[5:9])
    append_rows(tmp_path / PASSES, 0.5, record.passes[:30])
    append_rows(tmp_path / PASSES, 0.9, record.passes[30:60])
    columns = (getattr(record.readings, name) for name in Readings.__slots__)
    np.savetxt(tmp_path / READINGS, np.stack(list(columns), axis=1), delimiter=",", header="a header", fmt="%.3f")
    first, second = read_record(tmp_path, margin_s=1.0)
    assert (first.load, second.load) == (0.5, 0.9)
    assert [task.number for task in second.tasks] == [5, 6, 7, 8]
    assert second.tasks[0].ended_s == pytest.approx(record.tasks[5].ended_s, abs=1e-6)
    assert first.passes[29].reader == record.passes[29].reader
    assert first.readings.time_s[0] == pytest.approx(first.window_s[0] - 1.0, abs=0.02)
    assert first.readings.time_s[-1] == pytest.approx(first.window_s[1] + 1.0, abs=0.02)


def test_energy_is_shared_by_passes_although_the_counter_is_coarser(load: tuple[LoadRecord, dict[int, float]]) -> None:
    record, true_j = load
    shares = share_passes(record)
    found = Deviations.of([(shares.task_j[number], energy_j) for number, energy_j in true_j.items()])
    assert found.median < 0.02
    assert found.p90 < 0.06
    assert shares.passes_j == pytest.approx(sum(true_j.values()), rel=0.002)
    assert sum(shares.task_j.values()) == pytest.approx(shares.passes_j)
    assert (shares.reading_w, shares.writing_w) == pytest.approx((READING_W, WRITING_W), rel=0.02)
    assert shares.idle_w == pytest.approx(IDLE_W, rel=0.02)


@pytest.mark.parametrize(
    ("source", "every_s", "worst"), [(COUNTER, 1.0, 0.005), (COUNTER, 5.0, 0.005), (GAUGE, 1.0, 0.03)]
)
def test_what_is_attributed_adds_up(
    load: tuple[LoadRecord, dict[int, float]], source: str, every_s: float, worst: float
) -> None:
    record, true_j = load
    found = attribute_energy(record, source, every_s)
    assert found.task_j.keys() == true_j.keys()
    assert found.tasks_j == pytest.approx(sum(true_j.values()), rel=worst)
    assert found.tasks_j + found.idle_j == pytest.approx(found.measured_j, rel=worst)


@pytest.mark.parametrize("every_s", [1.0, 5.0])
def test_by_a_counter_each_task_has_its_energy(load: tuple[LoadRecord, dict[int, float]], every_s: float) -> None:
    record, true_j = load
    found_j = attribute_energy(record, COUNTER, every_s).task_j
    found = Deviations.of([(energy_j, true_j[number]) for number, energy_j in found_j.items()])
    assert found.median < 0.03
    assert found.p90 < 0.08


def test_the_laws_learn_a_gpu_from_its_tasks(load: tuple[LoadRecord, dict[int, float]]) -> None:
    record, true_j = load
    foreseen = foresee(settle(record.tasks, true_j, every_s=5.0), H100)
    assert [one.served.task for one in foreseen] == record.tasks
    figures = {row["of"]: row for row in judge_forecasts(foreseen, "here")}
    assert figures["seconds, law"]["count"] < len(record.tasks) - LEARNED_FROM
    assert figures["seconds, law"]["median"] < 0.05
    assert figures["seconds, law"]["median"] < figures["seconds, forecast"]["median"] < 0.4


def test_the_simulated_gpu_gets_the_same_tasks(load: tuple[LoadRecord, dict[int, float]]) -> None:
    record, _ = load
    simulated = simulate_load(record.tasks, H100)
    asked = [(task.number, task.arrived_s, task.output_tokens) for task in record.tasks]
    assert [(task.number, task.arrived_s, task.output_tokens) for task in simulated.tasks] == asked
    assert sum(simulated.task_j.values()) == pytest.approx(simulated.energy_j)


def test_deviations_are_relative_and_the_bias_is_that_of_the_sums() -> None:
    found = Deviations.of([(110.0, 100.0), (1.0, 2.0)])
    assert found.median == pytest.approx((np.log(1.1) + np.log(2.0)) / 2)
    assert found.bias == pytest.approx(111.0 / 102.0 - 1.0)


def test_all_comparisons_of_a_record_are_made(load: tuple[LoadRecord, dict[int, float]]) -> None:
    record, _ = load
    rows = judge(replace(record, load=0.7), H100)
    assert {row["load"] for row in rows} == {0.7}
    for kind in ("measured", "simulated", "forecasts", "attributed"):
        assert any(kind in row for row in rows)
