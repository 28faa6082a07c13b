"""Figures of runs, kept in a folder under the hash of everything that they depend on."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from perllm_lab.campaign.files import write_atomically
from perllm_lab.report.digest import RunDigest
from perllm_lab.simulator.experiment import Experiment, RunSpec
from perllm_lab.workload.sources import identify_arrivals

_DIGEST = TypeAdapter(RunDigest)


class RunCache:
    """Digests in one file each. Files of other code stay until the folder is deleted; they are never found.

    Args:
        folder: where they are; created with the first one.
        code: hash of the code.
        experiment: the runs are part of it.
    """

    def __init__(self, folder: Path, code: str, experiment: Experiment) -> None:
        self._folder = folder
        self._common = {"code": code, **_describe(experiment)}

    def find(self, job: RunSpec) -> RunDigest | None:
        """Return the digest of a run; None if there is none, or none that can be read."""
        try:
            return _DIGEST.validate_json(self.path(job).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, job: RunSpec, digest: RunDigest) -> None:
        """Keep the digest of a run."""
        write_atomically(self.path(job), _DIGEST.dump_json(digest).decode())

    def path(self, job: RunSpec) -> Path:
        """Return the file of a run; the same for equal runs of different experiments."""
        key = json.dumps({**self._common, **asdict(job)}, sort_keys=True)
        digest = sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.json"


def _describe(experiment: Experiment) -> Mapping[str, object]:
    """Return what all runs of an experiment have in common; traces in files by their content."""
    return {
        "scenario": experiment.scenario.model_dump(mode="json"),
        "trace": identify_arrivals(experiment.trace),
        "tasks": experiment.tasks,
        "settings": asdict(experiment.settings),
    }
