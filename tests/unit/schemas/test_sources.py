import stat
from pathlib import Path

import pytest

from perllm_lab.kubernetes.build import ToolchainError
from schemas.sources import Source, fetch

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.99.0 ;;
mod) printf '%s\n' 'go: downloading example.com/x v1.0.0' >&2; printf '%s' '{answer}' ;;
esac
"""
SOURCE = Source("example.com/x", "v1.0.0", "h1:known=")


def answer(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "go"
    program.write_text(FAKE_GO.replace("{answer}", text))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


async def test_sources_are_in_the_cache_of_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer('{\n"Dir": "/modules/x",\n"Sum": "h1:known="\n}\n', tmp_path, monkeypatch)

    assert await fetch(SOURCE, cache_folder=tmp_path) == Path("/modules/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"Dir": "/modules/x", "Sum": "h1:other="}', "has the checksum h1:other=, not h1:known="),
        ('{"Error": "no such host"}', "could not be downloaded: no such host"),
        ("go: no module proxy", r"could not be downloaded: (?s:.*)no module proxy"),
    ],
)
async def test_sources_with_another_checksum_are_rejected(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(text, tmp_path, monkeypatch)

    with pytest.raises(ToolchainError, match=message):
        await fetch(SOURCE, cache_folder=tmp_path)
