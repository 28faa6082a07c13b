"""What annotations say, what counts where one is missing, and what is reported about a wrong one."""

from typing import Any

import pytest

from perllm.annotated.annotated_pod import NO_DEADLINE_S, AnnotatedPod, UnreadablePod, read_own_pod
from perllm.api.task import Tier
from unit.annotated.pods import REPORT, pod_object

GPUS = ("nvidia.com/gpu",)
MODEL = {"perllm.io/model": "m"}


def read(annotations: dict[str, str] | None = None, **fields: object) -> AnnotatedPod:
    seen = read_own_pod(pod_object(annotations=annotations, **fields), GPUS)  # type: ignore[arg-type]
    assert isinstance(seen, AnnotatedPod)
    return seen


def test_annotations_say_what_the_pod_asks_for() -> None:
    request = read(
        {
            "perllm.io/model": "org/model:8b",
            "perllm.io/deadline": "1m30s",
            "perllm.io/prompt-tokens": "500",
            "perllm.io/output-tokens": "80",
            "perllm.io/input-bytes": "2Mi",
            "perllm.io/tiers": "cloud",
        }
    ).to_request(1000.0)
    assert (request.model, request.prompt_tokens, request.output_tokens) == ("org/model:8b", 500, 80)
    assert (request.input_bytes, request.deadline_s, request.due_s) == (2 * 2**20, 90.0, 1090.0)
    assert (request.tiers, request.task_id, request.namespace) == (frozenset((Tier.CLOUD,)), "uid-p", "lab")


def test_missing_annotations_have_stated_meanings() -> None:
    request = read(MODEL).to_request(1000.0)
    assert (request.prompt_tokens, request.output_tokens, request.input_bytes) == (1000, None, 0)
    assert (request.tiers, request.deadline_s) == (frozenset(Tier), NO_DEADLINE_S)


@pytest.mark.parametrize(("text", "tiers"), [("edge,cloud", set(Tier)), (" edge ", {Tier.EDGE})])
def test_tiers_are_separated_by_commas(text: str, tiers: set[Tier]) -> None:
    assert read({**MODEL, "perllm.io/tiers": text}).announcement.tiers == tiers


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({}, "annotation perllm.io/model is missing"),
        ({"perllm.io/model": "a b"}, "annotation perllm.io/model: "),
        (
            {**MODEL, "perllm.io/deadline": "soon"},
            "annotation perllm.io/deadline: 'soon' is not a duration: write for ",
        ),
        ({**MODEL, "perllm.io/deadline": "25h"}, "annotation perllm.io/deadline: must be more than 0s and at most 24h"),
        ({**MODEL, "perllm.io/deadline": "-5s"}, "annotation perllm.io/deadline: "),
        ({**MODEL, "perllm.io/deadline": "1e3s"}, "annotation perllm.io/deadline: "),
        ({**MODEL, "perllm.io/prompt-tokens": "0"}, "annotation perllm.io/prompt-tokens: "),
        ({**MODEL, "perllm.io/prompt-tokens": "9" * 250_000}, "annotation perllm.io/prompt-tokens: "),
        ({**MODEL, "perllm.io/prompt-tokens": "\uff15"}, "annotation perllm.io/prompt-tokens: "),
        ({**MODEL, "perllm.io/output-tokens": "many"}, "annotation perllm.io/output-tokens: "),
        ({**MODEL, "perllm.io/input-bytes": "-1"}, "annotation perllm.io/input-bytes: "),
        ({**MODEL, "perllm.io/tiers": "fog"}, "annotation perllm.io/tiers: "),
        ({**MODEL, "perllm.io/tiers": ""}, "annotation perllm.io/tiers: "),
        ({**MODEL, "perllm.io/tiers": "," * 250_000}, "annotation perllm.io/tiers: must be edge, cloud, or both"),
    ],
)
def test_a_wrong_annotation_is_named(annotations: dict[str, str], problem: str) -> None:
    seen = read_own_pod(pod_object(annotations=annotations), GPUS)
    assert isinstance(seen, UnreadablePod)
    assert seen.problem.startswith(problem)


@pytest.mark.parametrize(("policy", "is_lasting"), [("Always", True), ("OnFailure", False), ("Never", False)])
def test_a_pod_that_kubelet_always_restarts_is_a_lasting_one(policy: str, is_lasting: bool) -> None:
    item = pod_object()
    item["spec"]["restartPolicy"] = policy
    seen = read_own_pod(item, GPUS)
    assert isinstance(seen, AnnotatedPod)
    assert seen.is_lasting is is_lasting
    assert seen.deadline_s == (None if is_lasting else 60.0)


def test_a_restart_of_a_container_is_noticed() -> None:
    item = pod_object(node="a", started_s=1000.0)
    assert not read_own_pod(item, GPUS).pod.was_restarted  # type: ignore[union-attr]
    item["status"]["containerStatuses"][0]["restartCount"] = 1
    assert read_own_pod(item, GPUS).pod.was_restarted  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {**MODEL, "leaderworkerset.sigs.k8s.io/size": "4"}},
        {"annotations": {**MODEL, "scheduling.k8s.io/group-name": "podgroup-1"}},
        {"annotations": MODEL, "labels": {"scheduling.x-k8s.io/pod-group": "four"}},
    ],
)
def test_a_pod_of_a_gang_is_refused_with_a_pointer(metadata: dict[str, Any]) -> None:
    seen = read_own_pod(pod_object(**metadata), GPUS)
    assert isinstance(seen, UnreadablePod)
    assert seen.problem.startswith("it is one of a gang (")
    assert "Volcano" in seen.problem


def test_a_pod_of_a_group_of_kubernetes_is_refused_since_it_may_be_a_gang() -> None:
    item = pod_object(annotations=MODEL)
    item["spec"]["schedulingGroup"] = {"podGroupName": "workers"}
    seen = read_own_pod(item, GPUS)
    assert isinstance(seen, UnreadablePod)
    assert seen.problem.startswith("it is one of a gang (schedulingGroup.podGroupName=workers)")


def test_a_server_of_one_pod_is_no_gang() -> None:
    assert read({**MODEL, "leaderworkerset.sigs.k8s.io/size": "1"}).demand.slots == 1


def test_a_container_that_kubectl_takes_by_default_does_the_work_wherever_it_is() -> None:
    item = pod_object(node="a", annotations={**MODEL, "kubectl.kubernetes.io/default-container": "llm"})
    item["spec"]["containers"].insert(0, {"name": "proxy"})
    states = {"llm": {"terminated": {"exitCode": 0, "message": REPORT}}, "proxy": {"running": {}}}
    item["status"]["containerStatuses"] = [{"name": name, "state": state} for name, state in states.items()]
    seen = read_own_pod(item, GPUS)
    assert seen is not None
    assert seen.pod.report is not None
    assert not seen.pod.is_finished


def test_a_pod_of_a_task_is_no_annotated_pod() -> None:
    owner = {"kind": "LLMInferenceTask", "name": "t", "uid": "uid-t"}
    assert read_own_pod(pod_object(ownerReferences=[owner]), GPUS) is None
