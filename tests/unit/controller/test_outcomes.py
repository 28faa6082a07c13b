import math
from datetime import UTC, datetime

import pytest

from perllm.api.served_run import PromptCounts, RunEnd, ServedRun
from perllm.api.task_status import TaskStatus
from perllm.cluster.pod import Pod
from perllm.controller.lifecycle import advance
from perllm.controller.outcomes import build_outcome
from perllm.placement.flight import Residence
from unit.controller.samples import make_task, running, succeeded
from unit.placement.records import make_decision


class TestOutcome:
    TASK = make_task()

    def settled(self, pod: Pod, **observed: object) -> TaskStatus:
        status = advance(self.TASK, TaskStatus(), [pod], 1020.0).status
        assert status.observed is not None
        return status.model_copy(update={"observed": status.observed.model_copy(update=observed)})

    def test_is_what_was_observed_next_to_what_was_predicted(self) -> None:
        report = {"finishedAt": "1970-01-01T00:16:50Z", "transferSeconds": 1.5, "promptTokens": 900, "outputTokens": 80}
        pod = succeeded(report=report)
        outcome = build_outcome(
            self.TASK, self.settled(pod, energy_joules=110.0), pod, make_decision(), Residence(3.5, 700.0)
        )
        assert outcome is not None
        assert (outcome.run.task_id, outcome.run.model, outcome.run.node) == ("uid-t", "m", "n")
        assert (outcome.run.prompt_tokens, outcome.output_tokens) == (900, 80)
        # created at 1000 s, decided at 1002 s, complete at 1010 s, of that 1.5 s transfer
        assert (outcome.latency_s, outcome.run.run_s, outcome.finished_s, outcome.deadline_s) == (
            10.0,
            6.5,
            1010.0,
            60.0,
        )
        assert (outcome.inference_energy_j, outcome.transmission_energy_j, outcome.energy_j) == (100.0, 10.0, 110.0)
        assert (outcome.predicted_energy_j, outcome.run.occupancy, outcome.resource_slack) == (500.0, 3.5, 0.6)
        assert (outcome.run.others_tokens, outcome.is_length_known) == (700.0, True)

    def test_falls_back_on_expectations_where_the_run_said_nothing(self) -> None:
        pod = succeeded()
        outcome = build_outcome(self.TASK, self.settled(pod), pod, make_decision(), None)
        assert outcome is not None
        assert (outcome.run.prompt_tokens, outcome.output_tokens, outcome.run.occupancy) == (1000, 100, 2.0)
        assert (outcome.energy_j, outcome.is_length_known) == (None, False)
        assert not math.isnan(outcome.run.run_s)

    @pytest.mark.parametrize(("prompts", "is_length_known"), [(None, True), (1, True), (3, False)])
    def test_of_a_pod_with_several_prompts_has_no_length_of_one_answer(
        self, prompts: int | None, is_length_known: bool
    ) -> None:
        pod = succeeded(report={"outputTokens": 80, **({} if prompts is None else {"prompts": prompts})})
        outcome = build_outcome(self.TASK, self.settled(pod), pod, make_decision(), None)
        assert outcome is not None
        assert (outcome.output_tokens, outcome.is_length_known) == (80, is_length_known)

    @pytest.mark.parametrize(("concurrency", "is_sequential"), [(None, True), (1, True), (8, False)])
    def test_of_a_pod_that_asked_several_prompts_at_a_time_is_not_sequential(
        self, concurrency: int | None, is_sequential: bool
    ) -> None:
        pod = succeeded(report={"outputTokens": 80, **({} if concurrency is None else {"concurrency": concurrency})})
        outcome = build_outcome(self.TASK, self.settled(pod), pod, make_decision(), None)
        assert outcome is not None
        assert outcome.is_sequential is is_sequential

    def test_of_a_task_that_did_not_succeed_is_none(self) -> None:
        assert build_outcome(self.TASK, TaskStatus(), running(), make_decision(), None) is None

    @pytest.mark.parametrize(("failed", "repeated", "is_learned"), [(0, 0, True), (1, 0, False), (0, 1, False)])
    def test_of_several_prompts_is_none_where_time_went_into_what_failed(
        self, failed: int, repeated: int, is_learned: bool
    ) -> None:
        counts = PromptCounts(total=3, answered=3 - failed, failed=failed, repeated=repeated)
        time = datetime.fromtimestamp(1010.0, UTC)
        run = ServedRun(attempt=1, end=RunEnd.ANSWERED, start_time=time, end_time=time, prompts=counts)
        status = self.settled(succeeded()).model_copy(update={"run": run})
        outcome = build_outcome(self.TASK, status, succeeded(), make_decision(), None)
        assert (outcome is not None) == is_learned
