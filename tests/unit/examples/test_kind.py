"""The files of docs/kind.md fit together, and name what the chart and the operator know."""

import json
import tomllib
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from perllm.api import names
from perllm.cluster.node import NodeLabels, read_node

ROOT = Path(__file__).parents[3]
KIND = ROOT / "examples/kind"
GUIDE = (ROOT / "docs/kind.md").read_text()


def load(name: str) -> Any:
    return yaml.safe_load((KIND / name).read_text())


def test_the_values_are_values_of_the_chart() -> None:
    schema = json.loads((ROOT / "charts/perllm/values.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(load("values.yaml"))) == []


def test_the_nodes_are_known_to_the_operator() -> None:
    workers = [node for node in load("cluster.yaml")["nodes"] if node["role"] == "worker"]
    items = [
        {"metadata": {"name": "n", "uid": "u", "labels": node["labels"]}, "spec": {}, "status": {}} for node in workers
    ]
    nodes = [read_node(item, NodeLabels()) for item in items]
    assert [(node.tier, node.slots) for node in nodes if node is not None] == [("edge", 1), ("cloud", 2)]


def test_agents_find_the_model_server_and_tasks_ask_for_its_model() -> None:
    server = load("model-server.yaml")
    pod = server["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"][names.SERVER_LABEL] == "true"
    assert [port["name"] for port in container["ports"]] == ["http"]
    assert server["metadata"]["namespace"] in GUIDE
    (alias,) = [argument.removeprefix("--alias=") for argument in container["args"] if "--alias" in argument]
    assert f"--model {alias} " in GUIDE


def test_the_image_that_is_loaded_is_the_one_that_is_installed() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = load("values.yaml")["image"]
    assert f"kind load docker-image {image['repository']}:{version} " in GUIDE
    assert image["pullPolicy"] == "Never"
