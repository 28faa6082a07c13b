"""When tasks are no longer sent to a node, and when again."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from perllm.api.node_profile import CircuitState
from perllm.placement.circuit import Attempt, CircuitChange
from perllm.placement.circuits import FORGET_S, PAUSE, TRIP, WINDOW_S, Circuits
from perllm.placement.holds import HOLD

FLEET = 4


@dataclass
class Ward:
    """The circuits of a fleet of four nodes, what they said, and the clock they see."""

    circuits: Circuits = field(default_factory=lambda: Circuits(Random(0)))
    in_flight: set[str] = field(default_factory=set)
    now_s: float = 1000.0
    said: list[tuple[str, CircuitState]] = field(default_factory=list)
    version: int = 0

    def refuse(self, *tasks: str, node: str = "n", namespace: str = "lab") -> None:
        for task in tasks:
            self.note(self.circuits.note_refused(Attempt(task, namespace, "m", node), "GPU is lost", self.now_s))

    def fail(self, *tasks: str, node: str = "n", namespace: str = "lab", model: str = "m") -> None:
        for task in tasks:
            self.note(self.circuits.note_failed(Attempt(task, namespace, model, node), "exit 1", self.now_s, FLEET))

    def begin(self, task: str, node: str = "n", namespace: str = "lab") -> None:
        self.note(self.circuits.note_began(Attempt(task, namespace, "m", node)))

    def succeed(self, *tasks: str, node: str = "n", namespace: str = "lab", model: str = "m") -> None:
        for task in tasks:
            self.note(self.circuits.note_succeeded(Attempt(task, namespace, model, node), self.now_s))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.note(self.circuits.tend(self.now_s))

    def place(self, task: str, node: str = "n", namespace: str = "lab") -> None:
        self.in_flight.add(task)
        self.circuits.note_placed(node, task, namespace, "m")

    def blocking(self, namespace: str = "lab", model: str = "m", task: str = "new") -> set[str]:
        return set(self.circuits.blocking(task, namespace, model, self.in_flight.__contains__))

    def note(self, changes: Iterable[CircuitChange]) -> None:
        self.said += [(change.node, change.state) for change in changes]

    @property
    def has_new_version(self) -> bool:
        """Whether the version has grown since this was last asked."""
        before, self.version = self.version, self.circuits.version
        return self.version > before


@pytest.fixture
def ward() -> Ward:
    return Ward()


def tasks(count: int = TRIP, prefix: str = "t") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


class TestRefusals:
    def test_of_some_tasks_in_a_row_close_a_node(self, ward: Ward) -> None:
        ward.refuse(*tasks(TRIP - 1))
        assert ward.blocking() == set()
        ward.refuse("last")
        assert ward.blocking() == ward.blocking(model="another") == {"n"}
        assert ward.said == [("n", CircuitState.OPEN)]

    def test_of_one_task_again_and_again_do_not(self, ward: Ward) -> None:
        ward.refuse(*["t"] * 10)
        assert ward.blocking() == set()

    def test_with_a_pod_that_ran_between_them_do_not(self, ward: Ward) -> None:
        ward.refuse(*tasks(TRIP - 1))
        ward.begin("works")
        ward.refuse(*tasks(TRIP - 1, "u"))
        assert ward.blocking() == set()

    def test_of_long_ago_do_not(self, ward: Ward) -> None:
        ward.refuse(*tasks(TRIP - 1))
        ward.wait(WINDOW_S + 1)
        ward.refuse("last")
        assert ward.blocking() == set()

    def test_may_close_all_nodes(self, ward: Ward) -> None:
        for number in range(FLEET):
            ward.refuse(*tasks(), node=f"n{number}")
        assert len(ward.blocking()) == FLEET


class TestProbes:
    def test_go_to_a_node_after_a_pause_one_at_a_time(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        ward.wait(PAUSE.first_s / 2 - 1)
        assert ward.blocking() == {"n"}
        ward.wait(PAUSE.first_s)
        assert ward.said[-1] == ("n", CircuitState.HALF_OPEN)
        assert ward.blocking() == set()
        ward.place("probe")
        assert ward.blocking(task="probe") == set()
        assert ward.blocking() == {"n"}

    def test_that_go_well_open_the_node_to_all(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        ward.wait(PAUSE.first_s)
        ward.place("probe")
        ward.begin("probe")
        assert ward.blocking() == set()
        assert ward.said[-1] == ("n", CircuitState.CLOSED)

    def test_that_fail_close_it_for_longer_without_another_word(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        for number in range(4):
            ward.wait(PAUSE.limit_s)
            ward.place(f"probe{number}")
            ward.refuse(f"probe{number}")
        ward.wait(PAUSE.first_s * 2**4 / 2 - 1)
        assert ward.blocking() == {"n"}
        assert [state for _, state in ward.said].count(CircuitState.OPEN) == 1

    def test_that_vanish_make_room_for_the_next(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        ward.wait(PAUSE.first_s)
        ward.place("probe")
        ward.in_flight.clear()
        assert ward.blocking() == set()

    def test_that_never_come_do_not_keep_a_circuit_for_ever(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        ward.wait(PAUSE.first_s)
        ward.wait(FORGET_S)
        assert ward.said[-1] == ("n", CircuitState.CLOSED)
        assert ward.circuits.of("n") == []


class TestTenants:
    def test_close_nodes_to_themselves_only(self, ward: Ward) -> None:
        for number in range(FLEET):
            ward.refuse(*tasks(20), node=f"n{number}", namespace="hostile")
        assert len(ward.blocking("hostile")) == FLEET
        assert ward.blocking("lab") == set()

    def test_that_agree_close_a_node_to_all(self, ward: Ward) -> None:
        ward.refuse(*tasks(), namespace="a")
        ward.refuse("one", namespace="b")
        assert ward.blocking("c") == {"n"}

    def test_that_do_well_there_show_that_it_is_the_others(self, ward: Ward) -> None:
        ward.refuse(*tasks(), namespace="hostile")
        ward.begin("works", namespace="b")
        ward.refuse("one", namespace="c")
        assert ward.blocking("c") == ward.blocking("b") == set()
        assert ward.blocking("hostile") == {"n"}


class TestFailures:
    def test_where_others_do_well_elsewhere_close_a_node_to_the_model(self, ward: Ward) -> None:
        ward.fail("t0", "t1")
        ward.succeed("u0", "u1", node="other")
        ward.fail("t2")
        assert ward.blocking() == {"n"}
        assert ward.blocking(model="another") == set()
        assert ward.blocking("another") == set()

    def test_of_several_models_close_it_to_all_models(self, ward: Ward) -> None:
        ward.fail("t0", "t1")
        ward.succeed("u0", node="other")
        ward.fail("t2", model="second")
        assert ward.blocking(model="third") == {"n"}

    @pytest.mark.parametrize("elsewhere", [(), ("fail",), ("fail", "succeed")])
    def test_that_are_no_fewer_elsewhere_are_those_of_the_tasks(self, ward: Ward, elsewhere: tuple[str, ...]) -> None:
        ward.succeed("before", node="other")
        ward.wait(1)
        ward.fail("t0", "t1")
        for number, what in enumerate(elsewhere):
            getattr(ward, what)(f"u{number}", node="other")
        ward.fail("t2")
        assert ward.blocking() == set()

    def test_that_follow_their_task_speak_against_no_node(self, ward: Ward) -> None:
        ward.succeed("u0", "u1", "u2", "u3", node="other")
        for node in ("n", "second", "third"):
            ward.fail(*tasks(), node=node)
        assert ward.blocking() == set()
        assert [state for _, state in ward.said] == [CircuitState.OPEN, CircuitState.CLOSED]

    def test_never_close_more_than_half_of_the_fleet(self, ward: Ward) -> None:
        for number in range(FLEET):
            ward.fail(*tasks(prefix=f"t{number}-"), node=f"n{number}")
            ward.succeed(*tasks(20, prefix=f"u{number}-"), node="judge")
            ward.fail(f"last{number}", node=f"n{number}")
        assert len(ward.blocking()) == FLEET / 2

    def test_end_with_a_success_of_the_model(self, ward: Ward) -> None:
        ward.succeed("u0", "u1", node="other")
        ward.fail(*tasks())
        ward.succeed("v", model="another")
        assert ward.blocking() == {"n"}
        ward.succeed("w")
        assert ward.blocking() == set()

    def test_show_that_the_node_does_not_refuse(self, ward: Ward) -> None:
        ward.refuse(*tasks())
        ward.fail("u")
        assert ward.blocking() == set()


class TestHolds:
    def held(self, ward: Ward, *, can_go_elsewhere: bool = True) -> bool:
        return ward.circuits.is_held("t", ward.now_s, can_go_elsewhere=can_go_elsewhere)

    def test_let_a_task_go_elsewhere_after_its_first_refusal(self, ward: Ward) -> None:
        ward.refuse("t")
        assert not self.held(ward)
        assert self.held(ward, can_go_elsewhere=False)
        ward.wait(HOLD.first_s)
        assert not self.held(ward, can_go_elsewhere=False)

    def test_make_a_task_take_minutes_for_its_last_attempts(self, ward: Ward) -> None:
        begun_s = ward.now_s
        for number in range(10):
            ward.refuse("t", node=f"n{number}")
            while self.held(ward):
                ward.wait(0.5)
        assert ward.now_s - begun_s > 120

    def test_end_with_the_task(self, ward: Ward) -> None:
        ward.refuse("t", "t")
        ward.circuits.forget_task("t")
        assert not self.held(ward)


def test_a_node_that_is_gone_is_forgotten(ward: Ward) -> None:
    ward.refuse(*tasks())
    ward.circuits.forget_node("n")
    assert ward.blocking() == set()
    assert ward.circuits.tend(ward.now_s + 1000) == []


def test_names_that_tenants_think_of_do_not_add_up(ward: Ward) -> None:
    for number in range(100):
        ward.succeed("u0", "u1", "u2", "u3", node="other", model=f"m{number}")
        ward.fail(*tasks(prefix=f"t{number}-"), model=f"m{number}")
    assert len(ward.circuits.of("n")) <= 32


def test_the_version_grows_with_every_change_of_a_circuit_and_with_nothing_else(ward: Ward) -> None:
    ward.refuse(*tasks(TRIP - 1))
    assert not ward.has_new_version
    ward.refuse("last")
    assert ward.has_new_version
    ward.wait(PAUSE.first_s)
    assert ward.has_new_version
    ward.place("probe")
    assert not ward.has_new_version
    ward.refuse("probe")
    assert ward.has_new_version
    ward.wait(PAUSE.limit_s)
    ward.begin("another")
    assert ward.has_new_version
    ward.refuse(*tasks())
    assert ward.has_new_version
    ward.circuits.forget_node("n")
    assert ward.has_new_version
    ward.circuits.forget_node("n")
    assert not ward.has_new_version
