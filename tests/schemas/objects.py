"""JSON schemas of Kubernetes objects, strict: unknown fields are rejected."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from schemas.sources import Source

Schema = dict[str, Any]
Kind = tuple[str, str]
"""apiVersion and kind."""

KUBERNETES = {
    "1.32": Source("k8s.io/kubernetes", "v1.32.13", "h1:5TGYdZ6YZqdp6h/Rp1vX/4TIoybMPdgv97LCZCtPuNQ="),
    "1.35": Source("k8s.io/kubernetes", "v1.35.4", "h1:o/8dBC/pHVpYoGV4OAIytAlNPZbdYVTXJHoYvXC4qzM="),
    "1.36": Source("k8s.io/kubernetes", "v1.36.3", "h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o="),
    "1.37": Source("k8s.io/kubernetes", "v1.37.2", "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE="),
}
PROMETHEUS_OPERATOR = Source(
    "github.com/prometheus-operator/prometheus-operator",
    "v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)

_SWAGGER = Path("api/openapi-spec/swagger.json")
_PROMETHEUS_CRDS = Path("example/prometheus-operator-crd")
# The API describes them as strings and reads them as either.
_LOOSE = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def read_kubernetes_schemas(folder: Path) -> dict[Kind, Schema]:
    """Read the schemas of all kinds from the sources of Kubernetes."""
    described = orjson.loads((folder / _SWAGGER).read_bytes())["definitions"]
    definitions = {name: _LOOSE.get(name) or _tighten(part) for name, part in described.items()}
    return {
        (f"{kind['group']}/{kind['version']}".lstrip("/"), kind["kind"]): {
            "$ref": f"#/definitions/{name}",
            "definitions": definitions,
        }
        for name, part in described.items()
        for kind in part.get("x-kubernetes-group-version-kind", ())
    }


def list_prometheus_crds(folder: Path) -> list[Path]:
    """List the files of the resource definitions of ServiceMonitor, PodMonitor and PrometheusRule."""
    return [
        folder / _PROMETHEUS_CRDS / f"monitoring.coreos.com_{name}.yaml"
        for name in ("servicemonitors", "podmonitors", "prometheusrules")
    ]


def read_crd_schemas(crds: Iterable[Mapping[str, Any]]) -> dict[Kind, Schema]:
    """Read the schemas of custom resources from their definitions."""
    return {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): _close_root(
            _tighten(version["schema"]["openAPIV3Schema"])
        )
        for crd in crds
        for version in crd["spec"]["versions"]
    }


def read_prometheus_schemas(folder: Path) -> dict[Kind, Schema]:
    """Read the schemas of ServiceMonitor, PodMonitor and PrometheusRule from the sources of the Prometheus operator."""
    return read_crd_schemas(yaml.load(file.read_text(), yaml.CSafeLoader) for file in list_prometheus_crds(folder))


def _close_root(schema: Schema) -> Schema:
    """Leave metadata open: a resource definition does not list its fields."""
    return {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}


def _tighten(schema: Any) -> Any:
    """Reject unknown fields wherever some are known, and accept both types of int-or-string."""
    if isinstance(schema, list):
        return [_tighten(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    tight = {key: _tighten(part) for key, part in schema.items() if key != "properties"}
    if "properties" in schema:
        tight["properties"] = {name: _tighten(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            tight.setdefault("additionalProperties", False)
    return tight
