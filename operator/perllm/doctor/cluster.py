"""Checks the version of the API server, and whether its resource definitions are those of this version of PerLLM."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perllm.api import names
from perllm.api.crd import list_crds
from perllm.doctor.finding import Finding, fail, ok, warn
from perllm.kueue.workload import API_VERSION, QUEUE_LABEL

Schema = Mapping[str, Any]

API_SERVER = "API server"
RESOURCES = "resources"
KUEUE = "Kueue"

TESTED_MINORS = (32, 37)
"""Minor versions of Kubernetes 1 on which the tests run: the oldest, which the chart insists on, and the newest."""

_TESTED = f"PerLLM is tested with Kubernetes 1.{TESTED_MINORS[0]} and 1.{TESTED_MINORS[-1]}"

_COMMON_PARTS = ("apiVersion", "kind", "metadata")
_UPDATE = "helm upgrade with crds.enabled=true, or: perllm crds | kubectl apply --server-side -f -"


def check_version(version: Mapping[str, str], server: str) -> Finding:
    """Check the answer of /version."""
    reported = version.get("gitVersion", "unknown")
    major, minor = (_read_number(version.get(part, "")) for part in ("major", "minor"))
    message = f"{reported} at {server}"
    if major is None or minor is None:
        return warn(API_SERVER, message, f"its version cannot be read; {_TESTED}")
    if (major, minor) < (1, TESTED_MINORS[0]):
        return fail(API_SERVER, message, f"{_TESTED}: upgrade the cluster")
    if (major, minor) > (1, TESTED_MINORS[-1]):
        return warn(API_SERVER, message, _TESTED)
    return ok(API_SERVER, message)


def check_resources(document: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Check the OpenAPI document of PerLLM's API group, which all accounts may read; None if there is none."""
    for crd in list_crds():
        yield _check_resource(crd, document)


def check_kueue(document: Mapping[str, Any] | None) -> Finding:
    """Check the OpenAPI document of Kueue's API that PerLLM uses; None if there is none."""
    if document is None:
        advice = "install Kueue 0.15 or newer, or set config.kueue.enabled=false"
        return fail(KUEUE, f"{API_VERSION} is not served, so tasks with the label {QUEUE_LABEL} wait", advice)
    return ok(KUEUE, f"{API_VERSION} is served")


def _check_resource(crd: Mapping[str, Any], document: Mapping[str, Any] | None) -> Finding:
    name, kind = crd["metadata"]["name"], crd["spec"]["names"]["kind"]
    schemas = (document or {}).get("components", {}).get("schemas", {})
    suffix = f".{names.VERSION}.{kind}"
    served = next((schema for key, schema in schemas.items() if key.endswith(suffix)), None)
    if served is None:
        return fail(RESOURCES, f"{name} is not installed", _UPDATE)
    own = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    lacking, different = [], False
    for part in (one for one in own if one not in _COMMON_PARTS):
        theirs = served.get("properties", {}).get(part, {})
        lacking += _find_lacking(own[part], theirs, part)
        different |= theirs != own[part]
    if lacking:
        return fail(RESOURCES, f"{name} is from another version, without {', '.join(lacking[:3])}", _UPDATE)
    if different:
        return warn(RESOURCES, f"{name} differs from this version's definition", _UPDATE)
    return ok(RESOURCES, f"{name} matches this version")


def _find_lacking(own: Schema, theirs: Schema, path: str) -> list[str]:
    """Return the fields that the API server would silently drop."""
    found = []
    for name, field in own.get("properties", {}).items():
        their_field = theirs.get("properties", {}).get(name)
        where = f"{path}.{name}"
        found += [where] if their_field is None else _find_lacking(field, their_field, where)
    if "items" in own:
        found += _find_lacking(own["items"], theirs.get("items", {}), f"{path}[]")
    return found


def _read_number(text: str) -> int | None:
    """Return the number at the beginning of a text; vendors write minor versions such as 37+."""
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None
