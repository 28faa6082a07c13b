"""The overview of all nodes and tasks at one moment."""

from collections.abc import Iterator

from perllm.cluster.client import Object
from perllm.overview.reading import SeenTask, read_listed_task, read_node, read_task
from perllm.overview.summary import summarise
from unit.overview.objects import CREATED_S, make_condition, make_done, make_placed, make_profile, make_task

NOW_S = CREATED_S + 5.0


def show(*tasks: Object, nodes: tuple[Object, ...] = (), rows: int = 10, now_s: float = NOW_S) -> str:
    seen = [node for one in nodes if (node := read_node(one)) is not None]
    return "\n".join(summarise([read_task(one) for one in tasks], seen, now_s, rows=rows, where="namespace team"))


def test_tasks_are_counted_by_phase_with_what_they_took() -> None:
    first, *_ = show(make_placed("a"), make_done("b"), make_done("c", latency_s=12.0)).splitlines()
    assert first == "Tasks of namespace team: 1 running, 2 succeeded; 1 of 2 in time, 500 J"


def test_unknown_energies_are_not_counted_as_zero() -> None:
    assert "250 J of the 1 whose energy is known" in show(make_done("a"), make_done("b", energy_j=None))


def test_what_ended_lately_is_apart() -> None:
    assert "In the last minute: 1 ended; 1 of 1 in time, 250 J" in show(make_done(), now_s=CREATED_S + 30.0)
    assert "In the last minute" not in show(make_done(), now_s=CREATED_S + 300.0)


def test_causes_of_waiting_are_counted() -> None:
    waits = [make_task(name, phase="Pending", message="waiting: no room") for name in "ab"]
    assert "2 waiting: no room\n" in show(*waits)


def test_a_node_has_its_tasks_and_its_circuit() -> None:
    circuit = {"state": "open", "reason": "GPU is lost", "since": "2026-01-01T00:00:00Z"}
    serving = {"ready": "1/1", "models": ["chat"], "busy": "3/16"}
    text = show(make_placed("a"), make_done("b"), nodes=(make_profile("t4-1", circuit=circuit, serving=serving),))
    (line,) = (one for one in text.splitlines() if one.startswith("t4-1"))
    assert line.split() == [
        "t4-1",
        "edge",
        "T4",
        "chat",
        "3/16",
        "1",
        "1",
        "100%",
        "250",
        "J",
        "open:",
        "GPU",
        "is",
        "lost",
    ]


def test_nodes_that_a_screen_has_no_room_for_leave_it_to_the_tasks() -> None:
    nodes = tuple(make_profile(f"t4-{number}") for number in range(5))
    seen = [node for one in nodes if (node := read_node(one)) is not None]
    lines = summarise([read_task(make_done())], seen, NOW_S, rows=10, where="namespace team", most_nodes=3)
    assert [line.split()[0] for line in lines if line.startswith("t4-")] == ["t4-0", "t4-1", "t4-2"]
    assert "... and 2 more nodes" in lines
    assert lines[-1].startswith("team/hello")
    assert "more nodes" not in show(nodes=nodes)


def test_open_tasks_come_first_the_most_urgent_one_at_the_top() -> None:
    urgent = make_task("urgent", spec={"deadline": "6s"}, phase="Pending")
    text = show(make_done("done"), make_placed("later"), urgent, rows=2)
    names = [line.split()[0] for line in text.splitlines() if line.startswith("team/")]
    assert names == ["team/urgent", "team/later"]
    assert text.endswith("... and 1 more")


def test_an_overview_needs_no_more_of_tasks_than_is_kept_of_them() -> None:
    other = {"node": "t4-2", "hitChance": 0.9, "predictedLatency": 3.0, "predictedEnergy": 200.0}
    waits = make_condition("Scheduled", "False", "NoRoom", "waiting: no room")
    items = [
        make_task("new"),
        make_task("waiting", phase="Pending", conditions=[waits]),
        make_placed("placed", decision={"alternatives": [other]}),
        make_done("done", result={"text": "x" * 1000}, message="as expected", conditions=[waits]),
        make_done("unknown", energy_j=None),
        make_done("rejected", phase="Rejected", deadlineMet=False, nodeName=None, decision=None, observed=None),
    ]
    nodes = [node for one in ("t4-1", "t4-2") if (node := read_node(make_profile(one))) is not None]
    whole, kept = (
        summarise([read(one) for one in items], nodes, NOW_S, rows=10, where="team")
        for read in (read_task, read_listed_task)
    )
    assert whole == kept
    (placed, done) = (read_listed_task(one).status for one in items[2:4])
    assert (done.result, done.decision, done.conditions, done.message) == (None, None, (), None)
    assert placed.decision is not None
    assert placed.decision.alternatives == ()


class CountedTasks(list[SeenTask]):
    """Tasks that count how often all of them are looked at."""

    passes = 0

    def __iter__(self) -> Iterator[SeenTask]:
        self.passes += 1
        return super().__iter__()


def count_passes(nodes: int) -> int:
    seen = [node for one in range(nodes) if (node := read_node(make_profile(f"t4-{one}"))) is not None]
    tasks = CountedTasks([read_task(make_done())])
    summarise(tasks, seen, NOW_S, rows=10, where="namespace team")
    return tasks.passes


def test_all_tasks_are_not_looked_at_for_each_node() -> None:
    assert count_passes(nodes=50) == count_passes(nodes=1)
