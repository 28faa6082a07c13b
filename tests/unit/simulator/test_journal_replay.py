from io import BytesIO
from pathlib import Path
from random import Random

import pytest

from perllm.api.task import OnInfeasible, Tier
from perllm.placement.circuit import Attempt
from perllm.placement.hindsight import CompletedRun, judge_run
from perllm.scheduling.assembly import SchedulerSettings, build_scheduler
from perllm.scheduling.clock import HeldClock
from perllm.scheduling.denial import DenialCause, PodDenial
from perllm.scheduling.journal import Inputs, JournalError
from perllm.scheduling.order import TaskRanks
from perllm.scheduling.pending import PendingTask, Start
from perllm.scheduling.ranking import Rank
from perllm.settings.policy import AdmissionSettings, PolicySettings
from perllm_lab.simulator.journal_replay import replay_journal
from unit.placement.cluster_of import CLOUD, EDGE, make_node, make_request
from unit.scheduling.schedulers import UPLINK

SETTINGS = SchedulerSettings(
    policy=PolicySettings(),
    admission=AdmissionSettings(),
    weights={"lab": 2.0},
    transmission_j_per_bit={Tier.EDGE: 1e-6, Tier.CLOUD: 2e-6},
    seed=7,
)
STEP_S = 0.25
STEPS = 300
NODES = (make_node("edge", EDGE, slots=2), make_node("cloud", CLOUD, slots=2, gpu_type="A100"))


def record(journal: BytesIO) -> None:
    """Run tasks of random urgency on two nodes that are too few for them, for 75 s, and record it."""
    now_s, rng = 1000.0, Random(3)
    scheduler, _ = build_scheduler(SETTINGS, Inputs(HeldClock(lambda: now_s, lambda: now_s), journal))
    ends: list[tuple[float, PendingTask, str]] = []
    for node in NODES:
        scheduler.put_node(node, UPLINK)
    for step in range(STEPS):
        now_s += STEP_S * rng.uniform(0.5, 1.5)
        if rng.random() < 0.5:
            request = make_request(f"uid-{step}", due_s=now_s + rng.uniform(5.0, 120.0))
            scheduler.note_arrival(request)
            may_reject = OnInfeasible.REJECT if step % 3 else OnInfeasible.BEST_EFFORT
            scheduler.submit(PendingTask(f"lab/t{step}", 1, 1, request, rng.choice([0.0, 0.5]), may_reject))
        for action in scheduler.due():
            if isinstance(action, Start):
                task = action.task
                if rng.random() < 0.1:
                    scheduler.note_denied(task, PodDenial(DenialCause.QUOTA, "exceeded quota"))
                    continue
                scheduler.note_created(task)
                node = scheduler.decide(task.request, [node.name for node in NODES]).node
                decision = None if node is None else scheduler.settle(task.uid, node)
                assert decision is not None
                scheduler.confirm(decision, 1.0)
                scheduler.withdraw(task.key)
                run = CompletedRun(
                    prompt_tokens=1000.0,
                    output_tokens=rng.uniform(20.0, 400.0),
                    bound_s=now_s,
                    finished_s=now_s + rng.uniform(2.0, 20.0),
                    transfer_s=0.1,
                    latency_s=20.0,
                    deadline_s=60.0,
                    inference_energy_j=rng.uniform(50.0, 500.0),
                    residence=None,
                )
                ends.append((run.finished_s, task, decision.node))
                scheduler.note_began(Attempt(task.uid, "lab", "m", decision.node))
                scheduler.learn(judge_run(decision, run), decision.gpu_type)
        for end_s, task, node_name in [one for one in ends if one[0] <= now_s]:
            scheduler.end(task.uid, node_name)
            ends.remove((end_s, task, node_name))
        scheduler.refresh()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recorded = BytesIO()
    record(recorded)
    path = tmp_path_factory.mktemp("journal") / "decisions.jsonl"
    path.write_bytes(recorded.getvalue())
    return path


def test_a_replay_gives_the_same_decisions_in_the_same_order(journal: Path) -> None:
    result = replay_journal(journal)
    assert result.differences == []
    assert result.started > 30
    assert result.decisions > 3 * result.started


def test_another_rank_shows_in_the_replay(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rank_by_deadline(ranks: TaskRanks, task: PendingTask) -> Rank:
        return -task.priority, task.request.due_s

    monkeypatch.setattr(TaskRanks, "rank", rank_by_deadline)
    assert replay_journal(journal).differences != []


def test_what_the_last_moment_cut_off_is_left_out(journal: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    whole = journal.read_bytes()
    cut.write_bytes(whole[:-10])
    first_line, last_line = 1, 1
    assert replay_journal(cut).inputs == len(whole.splitlines()) - first_line - last_line


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[]\n", '{"version": 99, "settings": {}}\n', '{"version": 2, "settings": {}}\n']
)
def test_what_is_not_a_journal_is_an_error_that_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(JournalError):
        replay_journal(path)


@pytest.mark.parametrize(
    "line", ["nonsense", '{"input": "fly"}', '{"now_s":1,"unix_s":1,"input":"fly","with":[],"result":null}']
)
def test_a_line_that_is_not_an_input_is_named(journal: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "broken.jsonl"
    first = journal.read_text().splitlines()[0]
    path.write_text(f"{first}\n{line}\n")
    with pytest.raises(JournalError, match="line 2"):
        replay_journal(path)


def test_a_journal_that_cannot_be_written_stops_the_recording_and_nothing_else() -> None:
    class FullDisk(BytesIO):
        def write(self, _: object) -> int:
            raise OSError("no space left on device")

    clock = HeldClock(lambda: 1000.0, lambda: 1000.0)
    inputs = Inputs(clock, FullDisk())
    scheduler, parts = build_scheduler(SETTINGS, inputs)
    scheduler.put_node(NODES[0], UPLINK)
    assert (list(parts.fleet.nodes), clock.is_held, inputs.is_recorded) == (["edge"], False, False)
