import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from integration.chart.helm import Object

HERE = Path(__file__).parent
SETS = ("default", "replicas", "observability", "network-policy", "agent")
"""Together they render every object of the chart."""

# In an environment of its own, since its requirements conflict with those of this project.
CHECKOV = ("tool", "run", "--python", sys.executable, "checkov==3.3.30")


def test_checkov_passes_with_the_documented_exceptions(render: Callable[[str], list[Object]], tmp_path: Path) -> None:
    for values in SETS:
        (tmp_path / f"{values}.yaml").write_text(yaml.dump_all(render(values), Dumper=yaml.CSafeDumper))
    uv = Path(sys.executable).with_name("uv")

    done = subprocess.run(
        [uv, *CHECKOV, "--directory", tmp_path, "--config-file", HERE / "checkov.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
