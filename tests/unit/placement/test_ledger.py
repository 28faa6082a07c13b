from math import hypot

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perllm.learning.lengths import REACH, LengthLaw
from perllm.placement.batch_table import FIRST_SIZE, BatchTable
from perllm.placement.ledger import RESERVATION_S, Ledger
from perllm.placement.node_table import NodeTable
from perllm.policy.problem import FloatArray
from unit.placement.flights import make_flight

ROWS = np.arange(3)
SHAPES = LengthLaw().shapes


def running(ledger: Ledger) -> list[float]:
    return ledger.loads(ROWS, 0.0).running.tolist()


def harms(ledger: Ledger) -> tuple[FloatArray, FloatArray, FloatArray]:
    loads = ledger.loads(ROWS, 0.0)
    return loads.stall_harm, loads.slow_harm, loads.harmed_s


class TestFlights:
    def test_count_from_the_reservation_on(self) -> None:
        ledger = Ledger()
        ledger.reserve(make_flight(row=1), 0.0)
        assert running(ledger) == [0, 1, 0]
        assert ledger.loads(ROWS, 0.0, model="m").running_model.tolist() == [0, 1, 0]
        assert ledger.loads(ROWS, 0.0, model="other").running_model.tolist() == [0, 0, 0]
        assert ledger.loads(ROWS, 0.0).demand_bps.tolist() == [0, 1e6, 0]

    def test_of_a_thousand_models_leave_nothing_behind(self) -> None:
        ledger = Ledger()
        for number in range(1000):
            model = f"m-{number}"
            ledger.reserve(make_flight(model=model), 0.0)
            assert list(ledger.models) == [model]
            ledger.release("t", 1.0)
        assert not ledger.models
        assert ledger.loads(ROWS, 0.0, model="m-0").running_model.tolist() == [0, 0, 0]
        assert not ledger.models

    def test_are_on_one_node_only(self) -> None:
        ledger = Ledger()
        ledger.reserve(make_flight(row=1), 0.0)
        ledger.reserve(make_flight(row=2), 1.0)
        ledger.confirm(make_flight(row=0), 2.0)
        assert (running(ledger), len(ledger)) == ([1, 0, 0], 1)

    def test_expire_when_they_are_not_carried_out(self) -> None:
        ledger = Ledger()
        ledger.reserve(make_flight("lost", 0), 0.0)
        ledger.reserve(make_flight("bound", 1), 0.0)
        ledger.confirm(make_flight("bound", 1), 1.0)
        assert ledger.find_expired(RESERVATION_S - 0.1) == []
        assert ledger.find_expired(RESERVATION_S) == ["lost"]
        ledger.cancel("lost", RESERVATION_S)
        assert running(ledger) == [0, 1, 0]
        assert ledger.loads(ROWS, 0.0).demand_bps.tolist() == [0, 1e6, 0]

    def test_can_be_cancelled_until_they_are_bound(self) -> None:
        ledger = Ledger()
        ledger.reserve(make_flight("reserved"), 0.0)
        ledger.confirm(make_flight("bound"), 0.0)
        for task_id in ("reserved", "bound", "unknown"):
            ledger.cancel(task_id, 1.0)
        assert running(ledger) == [1, 0, 0]


class TestResidence:
    def test_has_the_mean_number_of_tasks_over_its_time(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("first", fixed_s=0.0), 0.0)
        ledger.confirm(make_flight("second", fixed_s=4.0), 4.0)  # first: 1 task for 4 s, 2 for 4 s, 1 for 2 s
        second, first = ledger.release("second", 8.0), ledger.release("first", 10.0)
        assert second is not None
        assert first is not None
        assert second.occupancy == pytest.approx(2.0)
        assert first.occupancy == pytest.approx((4 * 1 + 4 * 2 + 2 * 1) / 10)
        assert ledger.release("first", 10.0) is None

    def test_goes_on_when_it_is_confirmed_again(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("other", fixed_s=0.0), 0.0)
        ledger.reserve(make_flight("t", fixed_s=0.0), 0.0)
        ledger.confirm(make_flight("t", fixed_s=0.0), 1.0)
        ledger.release("other", 5.0)
        ledger.confirm(make_flight("t", fixed_s=0.0), 9.0)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.occupancy == pytest.approx(1.5)

    def test_counts_those_that_write_while_it_writes_itself(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("before", fixed_s=0.0), 0.0)
        ledger.confirm(make_flight("t", fixed_s=6.0), 0.0)
        ledger.confirm(make_flight("with", fixed_s=8.0), 0.0)
        ledger.confirm(make_flight("after", fixed_s=20.0), 0.0)
        ledger.release("before", 5.0)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.occupancy == pytest.approx((2 * 1 + 2 * 2) / 4)

    def test_counts_per_gpu(self) -> None:
        ledger = Ledger()
        for number in range(5):
            ledger.confirm(make_flight(f"t{number}", gpus=2.0, fixed_s=0.0), 0.0)
        residence = ledger.release("t0", 10.0)
        assert residence is not None
        assert residence.occupancy == pytest.approx(1 + 4 / 2)

    def test_sits_through_the_prompts_before_it_and_those_that_come(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("before", reading_s=2.0), 0.0)
        ledger.confirm(make_flight("t", placed_s=1.0, fixed_s=3.0), 1.0)  # 500 tokens are still to be read
        ledger.confirm(make_flight("after", placed_s=5.0), 5.0)
        residence = ledger.release("t", 21.0)
        assert residence is not None
        assert residence.others_tokens == pytest.approx(500 + 1000)

    @pytest.mark.parametrize(("now_s", "others_tokens"), [(9.0, 0.0), (10.5, 1000.0), (30.0, 1000.0)])
    def test_a_prompt_counts_once_its_reading_begins(self, now_s: float, others_tokens: float) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("t"), 0.0)
        ledger.confirm(make_flight("later", placed_s=2.0, fixed_s=10.0), 2.0)  # read from 10 s on
        residence = ledger.observe("t", now_s)
        assert residence is not None
        assert residence.others_tokens == others_tokens

    def test_a_prompt_counts_once_however_often_its_task_is_reserved(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("t"), 0.0)
        for _ in range(2):
            ledger.reserve(make_flight("later", placed_s=2.0, fixed_s=10.0), 2.0)
        residence = ledger.observe("t", 30.0)
        assert residence is not None
        assert residence.others_tokens == 1000.0

    @pytest.mark.parametrize("left_s", [9.5, 10.5])
    def test_a_prompt_does_not_count_if_its_task_leaves_before_it_writes(self, left_s: float) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("t"), 0.0)
        ledger.reserve(make_flight("later", placed_s=2.0, fixed_s=10.0), 2.0)
        assert ledger.cancel("later", left_s)
        residence = ledger.observe("t", 30.0)
        assert residence is not None
        assert residence.others_tokens == 0.0

    def test_prompts_that_were_read_before_a_restart_do_not_count(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("t", placed_s=2.0), 10.0)
        ledger.confirm(make_flight("other", placed_s=3.0), 10.0)
        residence = ledger.observe("t", 30.0)
        assert residence is not None
        assert residence.others_tokens == 0.0


class TestOtherModels:
    """Each has a batch of its own, and an equal share of the time of the GPU for as long as it has work."""

    @staticmethod
    def put(ledger: Ledger, task_id: str, at_s: float, *, row: int = 0, model: str = "m", **fields: float) -> None:
        ledger.confirm(make_flight(task_id, row, placed_s=at_s, model=model, **{"fixed_s": 0.0, **fields}), at_s)

    def test_slow_a_task_down_for_as_long_as_they_have_work(self) -> None:
        ledger = Ledger()
        self.put(ledger, "t", 0.0)
        self.put(ledger, "other", 4.0, model="other")
        self.put(ledger, "another of the other", 5.0, model="other")
        self.put(ledger, "third", 6.0, model="third")
        for task_id, left_s in (("third", 7.0), ("other", 8.0), ("another of the other", 8.0)):
            ledger.release(task_id, left_s)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.pace == pytest.approx((6 * 1 + 3 * 1 / 2 + 1 * 1 / 3) / 10)
        assert residence.occupancy == 1.0

    def test_have_work_from_when_their_prompt_is_read(self) -> None:
        ledger = Ledger()
        self.put(ledger, "t", 0.0)
        self.put(ledger, "other", 0.0, model="other", fixed_s=8.0, reading_s=3.0)  # read from 5 s on
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.pace == pytest.approx((5 * 1 + 5 * 1 / 2) / 10)

    def test_count_from_when_the_task_itself_has_work(self) -> None:
        ledger = Ledger()
        self.put(ledger, "t", 0.0, fixed_s=8.0, reading_s=2.0)
        self.put(ledger, "other", 0.0, model="other")
        ledger.release("other", 7.0)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.pace == pytest.approx((1 * 1 / 2 + 3 * 1) / 4)

    def test_have_a_gpu_of_several_as_often_as_they_have_a_task_there(self) -> None:
        ledger = Ledger()
        for task_id, model in (("t", "m"), ("other", "other")):
            self.put(ledger, task_id, 0.0, model=model, gpus=2.0)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.pace == pytest.approx(1 / (1 + 1 / 2))

    def test_neither_write_nor_read_in_the_batch_of_a_task(self) -> None:
        ledger = Ledger()
        self.put(ledger, "before", 0.0, model="other", fixed_s=2.0)
        for task_id, model in (("t", "m"), ("own", "m"), ("other", "other")):
            self.put(ledger, task_id, 1.0, model=model, fixed_s=2.0)
        residence = ledger.release("t", 21.0)
        assert residence is not None
        assert residence.occupancy == pytest.approx(2.0)
        assert residence.others_tokens == 0.0

    def test_are_expected_by_what_is_there_now_and_was_lately(self) -> None:
        ledger = Ledger()
        for number in range(3):
            self.put(ledger, f"t{number}", 0.0)
        self.put(ledger, "other", 0.0, model="other")
        own, other, third = (ledger.loads(ROWS, 1e6, model=model) for model in ("m", "other", "third"))
        assert [loads.occupancy[0] for loads in (own, other, third)] == pytest.approx([3.0, 1.0, 0.0])
        assert [loads.division.pace[0] for loads in (own, other, third)] == pytest.approx([1 / 2, 1 / 2, 1 / 3])
        ledger.release("other", 1e6)
        assert ledger.loads(ROWS, 1e6, model="m").division.pace[0] == pytest.approx(1 / 1.5)
        assert ledger.loads(ROWS, 1e6 + 100.0, model="m").division.pace[0] == pytest.approx(1.0, abs=1e-3)

    def test_keep_prompts_and_reading_to_themselves(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("other", model="other"), 0.0)
        loads = [ledger.loads(ROWS, 1.0, model=model) for model in ("m", "other")]
        assert [one.backlog_tokens[0] for one in loads] == pytest.approx([0.0, 500.0])
        assert loads[0].reading_share[0] == 0.0 < loads[1].reading_share[0]
        ledger.confirm(make_flight("t", placed_s=1.0), 1.0)
        residence = ledger.release("t", 10.0)
        assert residence is not None
        assert residence.others_tokens == 0.0

    @pytest.mark.parametrize("is_one_engine", [True, False])
    def test_of_one_engine_share_a_batch(self, is_one_engine: bool) -> None:
        one, two = Ledger(), Ledger()
        two.put_batches(0, [{"m", "adapter"}])
        two.put_batches(1, [{"m", "adapter"}])
        if not is_one_engine:
            two.put_batches(0, [])
        for ledger, model in ((one, "m" if is_one_engine else "other"), (two, "adapter")):
            self.put(ledger, "t", 0.0)
            self.put(ledger, "later", 4.0, model=model)
            self.put(ledger, "on another node", 5.0, row=2, model="other")
        for task_id, left_s in (("later", 9.0), ("t", 10.0)):
            loads = [ledger.loads(ROWS, 8.0, model="m") for ledger in (one, two)]
            assert loads[0].occupancy.tolist() == loads[1].occupancy.tolist()
            assert loads[0].division.pace.tolist() == loads[1].division.pace.tolist()
            assert one.release(task_id, left_s) == two.release(task_id, left_s)
        assert bool(loads[1].division.pace[0] == 1.0) is is_one_engine

    def test_on_nodes_of_their_own_change_nothing(self) -> None:
        alone, together = Ledger(), Ledger()
        rng = np.random.default_rng(0)
        begun: list[str] = []
        for number in range(200):
            now_s, row = 0.3 * number, int(rng.integers(2))
            together.confirm(make_flight(f"o{number}", row=2, model="other", placed_s=now_s), now_s)
            ended = begun.pop(0) if len(begun) > 9 else ""
            residences = set()
            for ledger in (alone, together):
                ledger.confirm(make_flight(f"t{number}", row, placed_s=now_s, time_left_s=18.0), now_s)
                residences.add(ledger.release(ended, now_s))
                ledger.refresh(now_s, SHAPES)
            assert len(residences) == 1
            begun.append(f"t{number}")
            one, other = (ledger.loads(np.arange(2), now_s, model="m") for ledger in (alone, together))
            for name in ("occupancy", "backlog_tokens", "reading_share", "work_s", "stall_harm", "slow_harm"):
                assert getattr(one, name).tolist() == getattr(other, name).tolist()
            assert other.division.pace.tolist() == other.division.share.tolist() == [1.0, 1.0]

    def test_that_come_and_go_are_forgotten(self) -> None:
        table, nodes = BatchTable(), NodeTable()
        nodes.cover(3)
        for number in range(1000):
            for change in (1, -1):
                table.count(number % 3, f"m-{number}", change, 10.0 * number)
        assert len(table) <= FIRST_SIZE
        table.count(1, "m", 1, 1e5)
        division = table.divide("m", ROWS, nodes.at(ROWS, 1e5), 1e5)
        assert division.pace.tolist() == pytest.approx([1.0, 1.0, 1.0])
        assert division.share[1] == pytest.approx(1.0)


class TestFlows:
    def test_the_backlog_drains_at_the_speed_of_reading(self) -> None:
        ledger = Ledger()
        for number in range(3):
            ledger.confirm(make_flight(f"t{number}", row=1, placed_s=10.0), 10.0)
        assert ledger.loads(ROWS, 10.0).backlog_tokens.tolist() == [0, 3000, 0]
        assert ledger.loads(ROWS, 13.0).backlog_tokens.tolist() == [0, 1500, 0]
        assert ledger.loads(ROWS, 99.0).backlog_tokens.tolist() == [0, 0, 0]

    def test_inputs_wait_for_the_link(self) -> None:
        ledger = Ledger()
        ledger.put_bandwidth(ROWS, np.array([1e6, 1e6, 1e6]))
        ledger.confirm(make_flight("t", input_bits=4e6), 0.0)
        ledger.confirm(make_flight("u", input_bits=4e6), 1.0)
        assert ledger.loads(ROWS, 1.0).link_bits.tolist() == [7e6, 0, 0]
        assert ledger.loads(ROWS, 3.0).link_bits.tolist() == [5e6, 0, 0]

    def test_the_load_of_a_node_is_what_it_was_given_and_what_waits_for_it(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("t", work_s=3.0), 0.0)
        assert ledger.loads(ROWS, 0.0).work_s.tolist() == [3.0, 0, 0]
        assert 0 < ledger.loads(ROWS, 2.0).work_s[0] < 3.0
        assert ledger.loads(ROWS, 60.0).work_s[0] == 0.0
        ledger.wait("w", 1, 2.5)
        assert ledger.loads(ROWS, 60.0).work_s.tolist() == [0, 2.5, 0]

    def test_a_task_that_leaves_early_gives_back_the_work_that_it_did_not_do(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("stays", fixed_s=0.0, work_s=10.0), 0.0)
        ledger.confirm(make_flight("leaves", work_s=500.0, output_tokens=5000.0), 0.0)
        before_s = float(ledger.loads(ROWS, 3.0).work_s[0])
        ledger.release("leaves", 3.0)
        assert ledger.loads(ROWS, 3.0).work_s[0] < 0.05 * before_s

    def test_a_task_that_leaves_early_gives_back_what_it_has_not_read_and_fetched(self) -> None:
        ledger = Ledger()
        ledger.put_bandwidth(ROWS, np.array([1e6, 1e6, 1e6]))
        ledger.confirm(make_flight("before", input_bits=4e6), 0.0)  # reads 500 tokens a second
        ledger.confirm(make_flight("leaves", input_bits=8e12, prompt_tokens=1e6, reading_s=2000.0), 0.0)
        ledger.confirm(make_flight("after", input_bits=3e6), 1.0)
        ledger.release("leaves", 2.0)
        loads = ledger.loads(ROWS, 2.0)
        assert loads.link_bits[0] == pytest.approx(2e6 + 3e6)
        assert loads.backlog_tokens[0] == pytest.approx(1000.0)
        ledger.release("after", 2.0)
        assert ledger.loads(ROWS, 2.0).link_bits[0] == pytest.approx(2e6)

    def test_a_task_that_was_never_sent_leaves_no_work(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight("sent", work_s=10.0), 0.0)
        ledger.reserve(make_flight("never", work_s=7.0), 0.0)
        ledger.cancel("never", 0.0)
        assert ledger.loads(ROWS, 0.0).work_s[0] == pytest.approx(10.0)

    def test_tasks_that_write_since_before_a_restart_bring_only_what_they_have_not_written(self) -> None:
        ledger = Ledger()
        ledger.put_bandwidth(ROWS, np.array([1e6, 1e6, 1e6]))
        ledger.confirm(make_flight("new", 1, placed_s=7.0, input_bits=4e6, work_s=5.0), 7.0)
        # Of 100 tokens at 0.1 s, half are written after 5 of 10 s; reading takes 2 of 5 s of work.
        ledger.confirm(make_flight("old", 0, input_bits=4e6, work_s=5.0, token_s=0.1), 7.0)
        loads = ledger.loads(ROWS, 7.0)
        assert loads.backlog_tokens.tolist() == [0.0, 1000.0, 0.0]
        assert loads.link_bits.tolist() == [0.0, 4e6, 0.0]
        assert loads.work_s.tolist() == pytest.approx([1.5, 5.0, 0.0])
        assert loads.reading_share[0] == 0.0

    def test_a_node_without_tasks_has_nothing_left_to_do(self) -> None:
        ledger = Ledger()
        ledger.reserve(make_flight("a", 0, work_s=900.0, prompt_tokens=1e6, input_bits=8e12), 0.0)
        ledger.release("a", 1.0)
        loads = ledger.loads(ROWS, 1.0)
        assert (loads.work_s[0], loads.backlog_tokens[0], loads.link_bits[0]) == (0.0, 0.0, 0.0)

    def test_a_node_has_read_lately_as_long_as_its_prompts_took(self) -> None:
        ledger = Ledger()
        for number in range(50):
            ledger.confirm(make_flight(f"t{number}", reading_s=1.0, placed_s=4.0 * number), 4.0 * number)
        assert ledger.loads(ROWS, 200.0).reading_share[0] == pytest.approx(0.25, abs=0.06)


class TestWaiting:
    def test_tasks_count_where_they_wait_and_only_there(self) -> None:
        ledger = Ledger()
        ledger.wait("a", 0, 1.0)
        ledger.wait("b", 1, 1.0)
        ledger.wait("a", 1, 1.0)
        assert ledger.loads(ROWS, 0.0).waiting.tolist() == [0, 2, 0]
        for task_id in ("a", "a", "unknown"):
            ledger.stop_waiting(task_id)
        assert ledger.loads(ROWS, 0.0).waiting.tolist() == [0, 1, 0]


class TestHarm:
    """All tasks have been on their node for 10 s and have written since 2 s."""

    @staticmethod
    def slow(**fields: float) -> float:
        ledger = Ledger()
        ledger.confirm(make_flight(**fields), 0.0)
        ledger.refresh(10.0, SHAPES)
        return float(ledger.loads(ROWS, 10.0).slow_harm[0])

    def test_is_none_without_tasks(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight(), 0.0)
        ledger.refresh(1.0, SHAPES)
        ledger.release("t", 2.0)
        ledger.refresh(2.0, SHAPES)
        assert [figure.tolist() for figure in harms(ledger)] == [[0, 0, 0]] * 3

    def test_is_greatest_for_a_task_whose_deadline_is_about_when_it_ends(self) -> None:
        # exp(5) = 148 tokens at 0.1 s: the median end is at 17 s
        tight, roomy, hopeless = self.slow(time_left_s=18.0), self.slow(time_left_s=300.0), self.slow(time_left_s=10.1)
        assert tight > 10 * roomy
        assert tight > 10 * hopeless
        assert tight > 0.1

    def test_is_how_much_likelier_the_task_is_late_if_a_twentieth_of_the_time_left_is_lost(self) -> None:
        flight = make_flight(time_left_s=18.0, contention_s=0.0, reading_s=1e-6, length_kind=1)
        tokens = np.array([80.0, 160.0, 156.0])  # written, in time, and in time but for a twentieth of 8 s
        spread = hypot(flight.inference.length_spread, flight.forecast.time_spread)
        edges = np.linspace(-REACH, REACH, SHAPES.shape[1])
        written, in_time, nudged = np.interp((np.log(tokens) - 5.0) / spread, edges, SHAPES[1])
        ledger = Ledger()
        ledger.confirm(flight, 0.0)
        ledger.refresh(10.0, np.stack([np.linspace(0.0, 1.0, len(edges)), SHAPES[1]]))
        slow = float(ledger.loads(ROWS, 10.0).slow_harm[0])
        assert slow == pytest.approx((in_time - nudged) / (1.0 - written) / 0.05, rel=1e-5)

    def test_of_a_delay_is_that_of_the_share_of_the_time_left(self) -> None:
        ledger = Ledger()
        ledger.confirm(make_flight(time_left_s=18.0), 0.0)
        ledger.refresh(10.0, SHAPES)
        stall, slow, harmed_s = (float(figure[0]) for figure in harms(ledger))
        assert stall == pytest.approx(slow / 8.0)
        assert harmed_s == pytest.approx(8.0)

    def test_adds_up_over_the_tasks_of_a_node(self) -> None:
        ledger = Ledger()
        for number in range(3):
            ledger.confirm(
                make_flight(f"t{number}", row=number // 2, time_left_s=18.0, contention_s=0.0, reading_s=1e-6), 0.0
            )
        ledger.refresh(10.0, SHAPES)
        slow = ledger.loads(ROWS, 10.0).slow_harm
        assert slow[0] == pytest.approx(2 * slow[1], rel=0.01)
        assert slow[2] == 0.0

    def test_next_to_another_model_is_that_of_a_task_that_takes_twice_as_long(self) -> None:
        fields = {"time_left_s": 26.0, "contention_s": 0.0, "reading_s": 1e-6}
        ledger = Ledger()
        ledger.confirm(make_flight("t", **fields), 0.0)
        for number in range(3):
            ledger.confirm(make_flight(f"other-{number}", model="other", time_left_s=1e9, reading_s=1e-6), 0.0)
        ledger.refresh(10.0, SHAPES)
        slow = float(ledger.loads(ROWS, 10.0).slow_harm[0])
        assert slow == pytest.approx(self.slow(solo_token_s=0.2, **fields), rel=1e-6)
        assert slow != pytest.approx(self.slow(**fields), rel=0.1)

    def test_of_a_large_fleet_is_found_in_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("perllm.placement.flight_table.GROUP", 2)
        ledger, rows = Ledger(), np.arange(6)
        for row in (4, 0, 5, 1, 3):
            ledger.confirm(make_flight(f"t{row}", row, time_left_s=18.0), 0.0)
        ledger.release("t1", 1.0)
        known = []
        for _ in range(ledger.groups):
            ledger.refresh(10.0, SHAPES, 1)
            known.append(np.flatnonzero(ledger.loads(rows, 10.0).slow_harm).tolist())
        assert known == [[3], [3, 4, 5], [0, 3, 4, 5]]

    def test_found_in_turns_is_that_found_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for group in (256, 2):
            monkeypatch.setattr("perllm.placement.flight_table.GROUP", group)
            ledger = Ledger()
            for number in range(9):
                ledger.confirm(make_flight(f"t{number}", number % 3, time_left_s=14.0 + number), 0.0)
            ledger.release("t2", 5.0)
            ledger.refresh(10.0, SHAPES)
            found.append(np.concatenate(harms(ledger)))
        assert found[0] == pytest.approx(found[1])


ACTION = st.tuples(
    st.sampled_from(["reserve", "confirm", "cancel", "release", "expire"]), st.integers(0, 5), st.integers(0, 2)
)


@settings(deadline=None)
@given(st.lists(ACTION, max_size=40))
def test_the_counts_always_equal_the_tasks_in_flight(actions: list[tuple[str, int, int]]) -> None:
    ledger, flights, reserved = Ledger(), {}, {}
    for now_s, (action, task, row) in enumerate(actions):
        task_id = f"t{task}"
        if action == "reserve":
            ledger.reserve(make_flight(task_id, row), now_s)
            flights[task_id], reserved[task_id] = row, now_s
        elif action == "confirm":
            ledger.confirm(make_flight(task_id, row), now_s)
            flights[task_id] = row
            reserved.pop(task_id, None)
        elif action == "release" or (action == "cancel" and task_id in reserved):
            getattr(ledger, action)(task_id, now_s)
            flights.pop(task_id, None)
            reserved.pop(task_id, None)
        elif action == "expire":
            late = {one for one, since_s in reserved.items() if since_s + RESERVATION_S <= now_s}
            assert set(ledger.find_expired(now_s)) == late
            for one in late:
                ledger.cancel(one, now_s)
            flights = {one: at for one, at in flights.items() if one not in late}
            reserved = {one: since_s for one, since_s in reserved.items() if one not in late}
        ledger.refresh(now_s, SHAPES)
        expected = [list(flights.values()).count(row) for row in range(3)]
        assert running(ledger) == ledger.loads(ROWS, 0.0, model="m").running_model.tolist() == expected
        assert ledger.loads(ROWS, 0.0).demand_bps == pytest.approx([1e6 * count for count in expected])
        assert len(ledger) == len(flights)
        assert all((figure >= 0).all() for figure in harms(ledger))
