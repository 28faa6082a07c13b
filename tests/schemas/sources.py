"""The sources of Go modules, which hold the schemas that Kubernetes publishes."""

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from perllm_lab.kubernetes.build import ToolchainError, run
from perllm_lab.kubernetes.golang import find_go
from perllm_lab.kubernetes.modules import list_modules


@dataclass(frozen=True, slots=True)
class Source:
    """A release of a Go module.

    Attributes:
        module: its path.
        release: such as v1.2.3.
        checksum: of its files, as in a go.sum.
    """

    module: str
    release: str
    checksum: str


async def fetch(source: Source, *, cache_folder: Path) -> Path:
    """Return the folder of a module's files, from Go's own cache or its proxy.

    Raises:
        ToolchainError: it could not be downloaded, or its checksum is another.
    """
    go = await find_go(list_modules()[0], cache_folder, lambda progress: None)
    lines: list[str] = []
    argv = (go.executable, "mod", "download", "-json", f"{source.module}@{source.release}")
    # Outside of any module, or Go would apply that module's requirements.
    code = await run(argv, lines.append, {**os.environ, **go.environment}, folder=Path("/"))
    output = "\n".join(lines)
    try:
        answer = orjson.loads(output[output.index("{") :])
    except ValueError:
        answer = {"Error": output}
    if code != 0 or "Error" in answer:
        raise ToolchainError(f"{source.module} {source.release} could not be downloaded: {answer.get('Error')}")
    if answer["Sum"] != source.checksum:
        raise ToolchainError(
            f"{source.module} {source.release} has the checksum {answer['Sum']}, not {source.checksum}"
        )
    return Path(answer["Dir"])
