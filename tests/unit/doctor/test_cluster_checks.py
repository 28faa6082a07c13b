import copy
from typing import Any

import pytest

from perllm.api.crd import list_crds
from perllm.doctor.cluster import check_kueue, check_resources, check_version
from perllm.doctor.finding import Level


def version(minor: str) -> dict[str, str]:
    return {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}


@pytest.mark.parametrize(
    ("minor", "level"),
    [("37", Level.OK), ("36+", Level.OK), ("99", Level.WARN), ("32", Level.OK), ("31", Level.FAIL)],
)
def test_old_clusters_are_refused_and_untested_ones_are_said(minor: str, level: Level) -> None:
    assert check_version(version(minor), "https://here").level is level


def test_a_version_that_cannot_be_read_is_only_a_warning() -> None:
    assert check_version({"gitVersion": "custom"}, "https://here").level is Level.WARN


def served() -> dict[str, Any]:
    """Return the OpenAPI document of a cluster with this version's resources."""
    schemas = {
        f"io.perllm.v1alpha1.{crd['spec']['names']['kind']}": crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for crd in list_crds()
    }
    return {"components": {"schemas": copy.deepcopy(schemas)}}


def levels(document: dict[str, Any] | None) -> list[Level]:
    return [finding.level for finding in check_resources(document)]


def test_resources_of_this_version_are_fine() -> None:
    assert levels(served()) == [Level.OK] * 4


@pytest.mark.parametrize("document", [None, {}, {"components": {"schemas": {}}}])
def test_resources_that_are_not_installed_fail(document: dict[str, Any] | None) -> None:
    findings = list(check_resources(document))
    assert [finding.level for finding in findings] == [Level.FAIL] * 4
    assert "llminferencetasks.perllm.io is not installed" in findings[0].message


def test_fields_that_would_be_dropped_are_named() -> None:
    document = served()
    properties = document["components"]["schemas"]["io.perllm.v1alpha1.LLMNodeProfile"]["properties"]
    del properties["status"]["properties"]["models"]["items"]["properties"]["energy"]
    _, _, finding, _ = check_resources(document)
    assert finding.level is Level.FAIL
    assert "without status.models[].energy" in finding.message


def test_other_differences_are_a_warning() -> None:
    document = served()
    spec = document["components"]["schemas"]["io.perllm.v1alpha1.LLMInferenceTask"]["properties"]["spec"]
    spec["properties"]["fromTheFuture"] = {"type": "string"}
    assert levels(document) == [Level.WARN, Level.OK, Level.OK, Level.OK]


def test_a_resource_without_spec_and_status_is_compared_as_well() -> None:
    document = served()
    answers = document["components"]["schemas"]["io.perllm.v1alpha1.LLMTaskAnswer"]["properties"]["answers"]
    del answers["items"]["properties"]["text"]
    _, finding, *_ = check_resources(document)
    assert "without answers[].text" in finding.message


def test_queues_need_the_api_of_kueue() -> None:
    assert [check_kueue(document).level for document in (None, {})] == [Level.FAIL, Level.OK]
