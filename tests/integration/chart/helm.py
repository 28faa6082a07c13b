import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from chart_generator.metadata import read_version

HERE = Path(__file__).parent
CHART = HERE.parents[2] / "charts/perllm"
VERSION = read_version(HERE.parents[2])
NAMESPACE = "perllm-system"
IMAGE = "registry.example.com/perllm/perllm"
MONITORING = "monitoring.coreos.com/v1"
STANDARD_LABELS = {
    "helm.sh/chart": f"perllm-{VERSION}",
    "app.kubernetes.io/name": "perllm",
    "app.kubernetes.io/instance": "perllm",
    "app.kubernetes.io/version": VERSION,
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/part-of": "perllm",
}

Object = dict[str, Any]


class HelmError(Exception):
    pass


@dataclass
class Helm:
    program: Path
    rendered: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        line = [str(self.program), *arguments, *(("--values", "-") if values is not None else ())]
        text = json.dumps({"image": {"repository": IMAGE}, **(values or {})})
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def template(self, release: str, namespace: str, *flags: str, values: Mapping[str, Any]) -> str:
        """Return the text that would be installed."""
        return self("template", release, str(CHART), "--namespace", namespace, *flags, values=values)

    def render(
        self,
        values: Mapping[str, Any],
        *,
        release: str = "perllm",
        namespace: str = NAMESPACE,
        version: str = "1.37.2",
        apis: tuple[str, ...] = (MONITORING,),
    ) -> list[Object]:
        """Return the objects that would be installed; the same values are rendered once."""
        key = json.dumps([values, release, namespace, version, apis], sort_keys=True)
        if key not in self.rendered:
            flags = [f"--kube-version={version}", *(f"--api-versions={api}" for api in apis)]
            text = self.template(release, namespace, *flags, values=values)
            self.rendered[key] = orjson.dumps(read_documents(text))
        objects: list[Object] = orjson.loads(self.rendered[key])
        return objects

    def fail(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Return why Helm fails, on one line."""
        try:
            self(*arguments, values=values)
        except HelmError as error:
            return " ".join(str(error).split())
        raise AssertionError("Helm did not fail")


def read_documents(text: str) -> list[Object]:
    """Read the documents of a text of YAML that are not empty."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def load_values(name: str) -> Object:
    """Read a file in `values`."""
    values: Object = yaml.safe_load((HERE / "values" / f"{name}.yaml").read_text())
    return values


def is_hook(one: Object) -> bool:
    """Whether Helm creates an object only for a moment, such as before an uninstallation."""
    return "helm.sh/hook" in one["metadata"].get("annotations", {})


def find(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """Return the only object of a kind, or of a kind and a name."""
    (found,) = (one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"]))
    return found
