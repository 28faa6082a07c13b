import tomllib
from itertools import accumulate, chain
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[3]
PACKAGES = ("perllm", "perllm_lab")
PROJECTS = (ROOT / "pyproject.toml", ROOT / "operator/perllm_lab/pyproject.toml")


def list_entry_points(graph: grimp.ImportGraph) -> set[str]:
    """Return the modules of the console scripts, and those that `python -m` runs."""
    scripts = [tomllib.loads(file.read_text())["project"]["scripts"].values() for file in PROJECTS]
    return {one.partition(":")[0] for one in chain(*scripts)} | graph.find_matching_modules("**.__main__")


def test_every_module_is_reached_from_an_entry_point() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    entries = list_entry_points(graph)
    reached = entries.union(*map(graph.find_upstream_modules, entries))
    packages = {name for one in reached for name in accumulate(one.split("."), "{}.{}".format)}
    assert graph.modules - reached - packages == set()
