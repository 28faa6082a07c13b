"""The Kubernetes that the tests run on."""

import os

import pytest

from perllm_lab.kubernetes.modules import list_releases, parse_version
from perllm_lab.kubernetes.toolchain import VERSION_VARIABLE


def find_minor() -> int:
    """Return the minor version of Kubernetes 1 that the lab is of."""
    return parse_version(os.environ.get(VERSION_VARIABLE) or list(list_releases())[-1])[1]


def needs_kubernetes(minor: int, what: str) -> pytest.MarkDecorator:
    """Return a mark of tests of something that Kubernetes can do from 1.`minor` on."""
    return pytest.mark.skipif(find_minor() < minor, reason=f"{what}: since Kubernetes 1.{minor}")
