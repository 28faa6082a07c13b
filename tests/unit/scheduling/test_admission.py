from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from perllm.api.task import OnInfeasible, Tier
from perllm.cluster.node import Node
from perllm.placement.placer import Placement
from perllm.policy.contextual import CsUcb
from perllm.policy.problem import Policy, Verdict
from perllm.policy.table import CsUcbTable
from perllm.scheduling.admission import Admission
from unit.placement.cluster_of import CLOUD, make_node, make_request, make_setting

NOW_S = 1000.0
START, WAIT, REJECT = Verdict.START, Verdict.WAIT, Verdict.REJECT


def place(
    policy: Policy, *nodes: Node, left_s: float = 60.0, tiers: frozenset[Tier] = frozenset(Tier), busy: int = 0
) -> Placement:
    """Return the placement of a task when the first node runs `busy` others, and all have the model loaded."""
    setting = make_setting(*nodes, policy=policy)
    placer = setting.placer
    for node in nodes:
        setting.learner.warm(node.name, "m")
    for number in range(busy):
        placer.reserve(placer.choose(make_request(f"busy{number}")), nodes[0].name)
    return placer.choose(make_request(due_s=NOW_S + left_s, tiers=tiers))


@pytest.mark.parametrize("policy", [CsUcbTable, CsUcb])
@pytest.mark.parametrize(
    ("arrange", "best_effort", "reject"),
    [
        (lambda policy: place(policy, make_node("a")), START, START),
        (lambda policy: place(policy, make_node("a"), left_s=0.1), START, REJECT),
        (lambda policy: place(policy, make_node("a"), left_s=-5.0), START, REJECT),
        (lambda policy: place(policy, make_node("a", slots=1), busy=1, left_s=200.0), WAIT, WAIT),
        (lambda policy: place(policy), WAIT, WAIT),
    ],
    ids=["feasible", "too late everywhere", "deadline passed", "all full", "no nodes"],
)
def test_a_task_starts_waits_or_is_rejected(
    policy: type[Policy], arrange: Callable[[Policy], Placement], best_effort: Verdict, reject: Verdict
) -> None:
    assert Admission().judge(arrange(policy()), OnInfeasible.BEST_EFFORT) is best_effort
    assert Admission().judge(arrange(policy()), OnInfeasible.REJECT) is reject


SLOW, FAST = make_node("slow", slots=4, gpu_type="Jetson-Orin"), make_node("fast", slots=1, gpu_type="H100")


def test_a_task_waits_for_the_node_that_can_do_it_in_time() -> None:
    placement = place(CsUcb(), FAST, SLOW, busy=1, left_s=9.0)
    assert (placement.choice.verdict, placement.choice.awaited) == (WAIT, 0)
    assert {Admission().judge(placement, terms) for terms in OnInfeasible} == {WAIT}


def test_a_pod_that_exists_goes_where_there_is_room_although_its_task_would_wait() -> None:
    placement = place(CsUcb(), FAST, SLOW, busy=1, left_s=9.0)
    assert placement.node == "slow"
    assert placement.open_scores[0] == -float("inf") < placement.open_scores[1]
    assert placement.favourite == 0


def test_a_task_for_a_tier_without_nodes_waits_or_is_rejected() -> None:
    placement = place(CsUcbTable(), make_node("a"), tiers=frozenset({CLOUD}))
    assert Admission().judge(placement, OnInfeasible.BEST_EFFORT) is WAIT
    assert Admission().judge(placement, OnInfeasible.REJECT) is REJECT


def test_a_task_that_waits_for_a_node_is_rejected_once_its_deadline_has_passed() -> None:
    assert Admission().judge(place(CsUcb(), left_s=-1.0), OnInfeasible.REJECT) is REJECT


class TestConfidence:
    """Tasks that may be rejected are rejected if no node gives them the chance that is required."""

    @staticmethod
    def unsure() -> Placement:
        """Return a placement that the policy would start, with a chance between a fifth and a half."""
        placement = place(CsUcb(), make_node("a"), left_s=7.0)
        assert placement.choice.verdict is START
        assert 0.2 < placement.arms.hit_chance[0] < 0.5
        return placement

    @pytest.mark.parametrize(("min_hit_chance", "verdict"), [(0.0, START), (0.2, START), (0.5, REJECT)])
    def test_is_that_of_the_configuration(self, min_hit_chance: float, verdict: Verdict) -> None:
        admission = Admission(min_hit_chance, probe_share=0.0)
        assert admission.judge(self.unsure(), OnInfeasible.REJECT) is verdict

    def test_outweighs_a_policy_that_gives_the_task_up(self) -> None:
        placement = place(CsUcb(), make_node("a"), left_s=4.0)
        assert placement.choice.verdict is REJECT
        chance = float(placement.arms.hit_chance[0])
        assert Admission(chance).judge(placement, OnInfeasible.REJECT) is START

    def test_does_not_matter_to_tasks_that_are_run_in_any_case(self) -> None:
        assert Admission(1.0).judge(self.unsure(), OnInfeasible.BEST_EFFORT) is START

    def test_of_one_node_is_enough_wherever_the_policy_sends_the_task(self) -> None:
        placement = place(CsUcb(), FAST, SLOW, left_s=60.0)
        best = float(placement.arms.hit_chance.max())
        assert Admission(best).judge(placement, OnInfeasible.REJECT) is START

    def test_is_shown_with_the_rejection(self) -> None:
        words = Admission(0.5).explain_rejection(self.unsure(), "7s")
        assert words.startswith(
            "no node is expected to meet the deadline of 7s (excluded: none); best is a with a chance"
        )
        assert "at least 50% is required" in words


class TestProbes:
    """While no task of a model starts, some that would be rejected do, in case predictions are too pessimistic."""

    NARROW_S = 4.0
    """Half of what the task is predicted to take."""

    @staticmethod
    def judged(placement: Placement, count: int = 100, started: Placement | None = None) -> Counter[Verdict]:
        """Return the verdicts about a task that arrives again and again; `started` is one that starts in between."""
        admission = Admission(probe_share=0.25)
        verdicts: Counter[Verdict] = Counter()
        for number in range(count):
            if started is not None and number % 3 == 0:
                assert admission.judge(started, OnInfeasible.BEST_EFFORT) is START
            verdicts[admission.judge(placement, OnInfeasible.REJECT)] += 1
        return verdicts

    def test_are_the_configured_share(self) -> None:
        assert self.judged(place(CsUcb(), make_node("a"), left_s=self.NARROW_S)) == {REJECT: 75, START: 25}

    def test_are_none_while_others_of_the_model_start(self) -> None:
        started = place(CsUcb(), make_node("a"))
        assert self.judged(place(CsUcb(), make_node("a"), left_s=self.NARROW_S), started=started) == {REJECT: 100}

    def test_are_none_where_hardly_any_error_could_explain_the_prediction(self) -> None:
        assert self.judged(place(CsUcb(), make_node("a"), left_s=0.1)) == {REJECT: 100}

    def test_are_rare_but_not_none_whatever_is_predicted_since_nothing_else_would_ever_correct_it(self) -> None:
        hopeless = place(CsUcb(), make_node("a"), left_s=0.1)
        admission = Admission()
        arrivals = (replace(hopeless, decided_s=hopeless.decided_s + second) for second in range(100))
        starts = [at for at, one in enumerate(arrivals) if admission.judge(one, OnInfeasible.REJECT) is START]
        assert starts == [30, 61, 92]

    def test_are_not_put_off_by_a_clock_that_is_set_back(self) -> None:
        hopeless = place(CsUcb(), make_node("a"), left_s=0.1)
        admission = Admission()
        assert admission.judge(hopeless, OnInfeasible.REJECT) is REJECT
        earlier = replace(hopeless, decided_s=hopeless.decided_s - 3600.0)
        assert admission.judge(earlier, OnInfeasible.REJECT) is START

    def test_are_none_where_they_would_harm_others(self) -> None:
        crowded = place(CsUcb(), make_node("a", slots=4), left_s=self.NARROW_S, busy=3)
        assert self.judged(crowded) == {REJECT: 100}

    def test_are_none_once_the_deadline_has_passed(self) -> None:
        assert self.judged(place(CsUcb(), make_node("a"), left_s=-5.0)) == {REJECT: 100}
