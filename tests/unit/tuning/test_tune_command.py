import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.random import default_rng
from rich.console import Console

from perllm_lab.baselines.agod import Agod, AgodParameters
from perllm_lab.baselines.tuned import JOINT, read_weights
from perllm_lab.cli import main
from perllm_lab.report.progress import Display
from perllm_lab.simulator.experiment import Experiment
from perllm_lab.tuning import pretraining, trials
from perllm_lab.tuning.candidates import (
    FINALISTS,
    Candidate,
    Score,
    choose_candidates,
    list_candidates,
    merge_chosen,
    pick_finalists,
)
from perllm_lab.tuning.pretraining import learn_jointly, specialise, write_weights
from unit.simulator.in_process import run_here


def candidate(risk: float, policy: str = "fineinfer", scenario: str = "paper") -> Candidate:
    return Candidate(policy, scenario, (("risk", risk),))


def test_candidates_are_the_grid_in_every_deployment_mode_with_the_default_first() -> None:
    found = list_candidates(["agod", "fineinfer"], ["paper", "modern"])
    assert found[:3] == [candidate(2.0), candidate(1.0), candidate(4.0)]
    assert {(each.policy, each.scenario) for each in found} == {
        (policy, scenario) for policy in ("fineinfer", "fineinfer+d", "fineinfer+x") for scenario in ("paper", "modern")
    }
    assert len(found) == 18


def test_the_default_and_the_best_others_go_on() -> None:
    scores = {candidate(risk): Score(100, hits) for risk, hits in ((2.0, 10), (1.0, 50), (4.0, 40), (8.0, 60))}
    assert pick_finalists(scores) == [candidate(2.0), candidate(8.0), candidate(1.0)]
    assert FINALISTS == 3


def test_most_in_time_wins_and_energy_where_shares_tie() -> None:
    scores = {
        candidate(2.0): Score(1000, 500, 100.0),
        candidate(1.0): Score(1000, 502, 200.0),
        candidate(4.0): Score(1000, 490, 1.0),
        candidate(2.0, scenario="modern"): Score(1000, 500, 1.0),
        candidate(1.0, scenario="modern"): Score(1000, 600, 900.0),
    }
    assert choose_candidates(scores) == [candidate(2.0), candidate(1.0, scenario="modern")]


def test_what_was_tuned_before_stays_unless_it_is_tuned_again() -> None:
    before = {
        "fineinfer": {"paper": {"risk": 2.0}, "tight": {"risk": 3.0}},
        "cs-ucb-table": {"paper": {"exploration": 0.1}},
    }
    assert merge_chosen(before, [candidate(4.0)]) == {
        "fineinfer": {"paper": {"risk": 4.0}, "tight": {"risk": 3.0}},
        "cs-ucb-table": {"paper": {"exploration": 0.1}},
    }


def test_the_command_writes_parameters_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "run_parallel", run_here)
    asked = ["tune", "--scenarios", "paper", "--policies", "agod,fineinfer", "--load", "0.6,0.9", "--tasks", "30"]
    result = CliRunner().invoke(main, [*asked, "--episodes", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agod_weights.npz", "tuned.json", "tuning.json"]
    tuned = json.loads((tmp_path / "tuned.json").read_text())
    assert {policy: list(scenarios) for policy, scenarios in tuned.items()} == {
        policy: ["paper"] for policy in ("fineinfer", "fineinfer+d", "fineinfer+x")
    }
    record = json.loads((tmp_path / "tuning.json").read_text())["fineinfer+d"]["paper"]
    assert (record["loads"], record["seeds"], record["tasks"]) == ([0.6, 0.9], [1000], 30)
    assert tuned["fineinfer+d"]["paper"] in [each["parameters"] for each in record["finalists"]]
    assert re.search(r"fineinfer\+x +paper .*% .*% .* risk \d", result.output)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Experiment]:
    for name in ("PARAMETERS", "GENTLE"):
        monkeypatch.setattr(pretraining, name, AgodParameters(batch=8, update_every=4))
    return dict(trials.make_experiments(trials.TuneSettings(Path(), ("paper",), loads=(0.9,), tasks=60)))


def test_agod_learns_from_one_episode_after_another(small: dict[str, Experiment]) -> None:
    with Display(Console(quiet=True)).stage("agod") as stage:
        one, again, two = (list(learn_jointly(small, episodes, 1000, stage).values()) for episodes in (1, 1, 2))
    assert all(map(np.array_equal, one, again))
    assert not any(map(np.array_equal, one, two))


@pytest.mark.parametrize(
    ("gain", "owners"), [(1, [("agod", "paper"), ("agod+d", "paper"), ("agod+x", "paper")]), (0, [])]
)
def test_what_agod_learned_in_one_scenario_is_kept_where_it_helps(
    gain: int, owners: list[tuple[str, str]], small: dict[str, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = Agod(default_rng(0)).export_weights()
    monkeypatch.setattr(pretraining, "_test", lambda weights, *_: Score(100, 50 + gain * (weights is not joint), 1.0))
    with Display(Console(quiet=True)).stage("agod") as stage:
        assert list(specialise(joint, small, 1000, stage)) == owners


def test_without_joint_episodes_agod_keeps_what_it_learned_of_other_scenarios(
    tmp_path: Path, small: dict[str, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Agod(default_rng(0)).export_weights()
    write_weights(tmp_path / "w.npz", dict.fromkeys((JOINT, ("agod", "paper"), ("agod", "tight")), weights))
    monkeypatch.setattr(trials, "specialise", lambda joint, *_: {("agod+x", "paper"): joint})
    settings = trials.TuneSettings(tmp_path, episodes=0)
    trials.pretrain_agod(tmp_path / "w.npz", small, settings, Display(Console(quiet=True)))
    with (tmp_path / "w.npz").open("rb") as file:
        assert set(read_weights(file)) == {JOINT, ("agod", "tight"), ("agod+x", "paper")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed-base", "7"], "1000"),
        (["--policies", "random"], "nothing to tune for random; known: agod, cs-ucb-table"),
        (["--scenarios", "nowhere"], "no scenario nowhere"),
    ],
)
def test_what_cannot_be_tuned_is_named(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["tune", "--out", str(tmp_path / "out"), *options])
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_where_parameters_cannot_be_written_is_said_before_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "pretrain_agod", None)
    monkeypatch.setattr(trials, "try_candidates", None)
    (tmp_path / "tuned.json").mkdir()
    result = CliRunner().invoke(main, ["tune", "--scenarios", "paper", "--tasks", "10", "--out", str(tmp_path)])
    assert (result.exit_code, "Is a directory" in result.output) == (1, True), result.output
