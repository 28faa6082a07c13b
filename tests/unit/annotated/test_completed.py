from perllm.annotated.completed import read_run
from perllm.energy.attribution import MISSING
from unit.controller.samples import succeeded
from unit.placement.cluster_of import make_request
from unit.placement.records import make_decision


def test_several_prompts_of_a_pod_are_not_taken_for_one() -> None:
    pod = succeeded(report={"outputTokens": 240, "prompts": 3, "concurrency": 2})

    run = read_run(pod, make_request(), make_decision(), MISSING, None)

    assert (run.output_tokens, run.prompts, run.is_sequential) == (240, 3, False)
