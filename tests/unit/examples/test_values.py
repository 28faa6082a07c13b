from pathlib import Path

import pytest
import yaml

from perllm.config import Config

FILES = sorted((Path(__file__).parents[3] / "examples/values").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_values_are_settings_of_the_operator(path: Path) -> None:
    values = yaml.safe_load(path.read_text())

    config = Config.model_validate(values["config"])
    assert values.keys() == {"config"}
    assert config.deprecations == ()
    # Those for dcgm-exporter say of themselves that they are the defaults.
    assert (config == Config()) == (path.name == "dcgm-exporter.yaml")
