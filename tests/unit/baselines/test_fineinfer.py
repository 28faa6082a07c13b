from numpy.random import default_rng

from perllm.policy.problem import Choice
from perllm_lab.baselines.fineinfer import FineInfer, FineInferParameters
from unit.baselines.samples import make_arms, make_task


def predict_s(prompt_tokens: float, output_tokens: float, batch: float) -> float:
    """The law to find: 10 ms per token read; per token written 100 ms, and 10 ms for each task in the batch."""
    return 1.0 + 0.01 * prompt_tokens + output_tokens * (0.1 + 0.01 * batch)


def offer(
    policy: FineInfer, batch: float, *, early_s: float, prompt_tokens: float = 100, output_tokens: float = 100
) -> Choice:
    """Offers a task that one cloud node would finish `early_s` before its deadline, as the last of `batch` tasks."""
    latency_s = predict_s(prompt_tokens, output_tokens, batch)
    task = make_task(time_left_s=latency_s + early_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    return policy.choose(task, make_arms(used=[batch], slots=[8], latency_s=[latency_s], cloud=[True]))


def trained() -> FineInfer:
    policy = FineInfer(default_rng(0), FineInferParameters(risk=1.1, ridge=1e-9))
    rng = default_rng(1)
    for _ in range(50):
        prompt_tokens, output_tokens, batch = rng.uniform(10, 200, 3)
        offer(policy, 1 + batch % 7, early_s=1e6, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    offer(policy, 1, early_s=1e6)
    return policy


def test_uses_the_cloud_only() -> None:
    policy = FineInfer(default_rng(0))
    assert policy.choose(make_task(), make_arms(used=[1, 4], cloud=[False, True])).arm == 1


def test_waits_while_no_cloud_node_has_room() -> None:
    policy = FineInfer(default_rng(0))
    assert policy.choose(make_task(), make_arms(used=[1, 5], cloud=[False, True])).arm is None


def test_admits_what_admitted_requests_can_bear() -> None:
    # The newcomer costs the running request 100 x 10 ms to read and 100 x 10 ms to write alongside: 2 s.
    policy = trained()
    offer(policy, 1, early_s=2.1)
    assert offer(policy, 2, early_s=1e6).arm == 0


def test_defers_what_made_an_admitted_request_late() -> None:
    policy = trained()
    offer(policy, 1, early_s=1.9)
    assert offer(policy, 2, early_s=1e6).arm is None


def test_admits_again_when_that_request_has_ended() -> None:
    policy = trained()
    offer(policy, 1, early_s=1.9)
    offer(policy, 2, early_s=1e6)
    assert offer(policy, 1, early_s=1e6).arm == 0


def test_is_not_held_up_by_a_request_that_is_late_anyway() -> None:
    policy = trained()
    offer(policy, 1, early_s=-1)
    assert offer(policy, 2, early_s=1e6).arm == 0


def test_never_starves_a_request_whose_own_deadline_is_at_risk() -> None:
    policy = trained()
    offer(policy, 1, early_s=1.9)
    assert offer(policy, 2, early_s=0.5).arm == 0


def test_goes_to_a_more_loaded_node_rather_than_defer() -> None:
    policy = trained()
    offer(policy, 1, early_s=1.9)
    latency_s = predict_s(100, 100, 3)
    arms = make_arms(used=[2, 3], slots=[8, 8], latency_s=[latency_s] * 2, cloud=[True, True])
    assert policy.choose(make_task(time_left_s=1e6), arms).arm == 1
