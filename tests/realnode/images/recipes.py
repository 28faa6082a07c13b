"""Recipes of the images that the chart installs."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from perllm_lab.kubernetes.build import run
from realnode.images.builder import Recipe

_CERTIFICATES_IN_BUILD = "/run/secrets/ca"
# Settings of pip about how this machine reaches its package index.
_INDEX_SETTINGS = ("cert", "extra-index-url", "index-url", "proxy", "trusted-host")


def program_recipe(name: str, program: Path, context: Path) -> Recipe:
    """Write the context of an image that holds one static program into a new folder, and return the recipe."""
    context.mkdir(parents=True)
    shutil.copy2(program, context / program.name)
    (context / "Dockerfile").write_text(
        f'FROM scratch\nENV PATH=/usr/local/bin\nCOPY {program.name} /usr/local/bin/\nENTRYPOINT ["{program.name}"]\n'
    )
    return Recipe(name, context)


async def operator_recipe(name: str, source: Path, base: str, folder: Path) -> Recipe:
    """Return the recipe of the operator's image from a clone; the settings of pip are written into `folder`."""
    listing: list[str] = []
    await run((sys.executable, "-m", "pip", "config", "list"), listing.append, os.environ)
    settings = read_index_settings(listing)
    secrets = {"pip": folder / "pip.conf"}
    if "cert" in settings:
        secrets["ca"], settings["cert"] = Path(settings["cert"]), _CERTIFICATES_IN_BUILD
    lines = ("[global]", *(f"{key} = {value}" for key, value in settings.items()), "")
    secrets["pip"].write_text("\n".join(lines))
    return Recipe(name, source, {"BASE_IMAGE": base}, secrets)


def read_index_settings(listing: Iterable[str]) -> dict[str, str]:
    """Parse the settings about the package index out of what `pip config list` prints."""
    pairs = (line.partition("=") for line in listing)
    settings = ((key.rpartition(".")[2], value.strip("'\"")) for key, _, value in pairs)
    return {key: value for key, value in settings if key in _INDEX_SETTINGS}
