import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perllm_lab.kubernetes.build import Progress, ToolchainError
from perllm_lab.kubernetes.modules import Module, compute_key, list_modules
from perllm_lab.kubernetes.toolchain import provide

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.99.0 ;;
list) echo "go: downloading example.com/one v1.0.0" >&2; echo example.com/one; echo example.com/two ;;
build)
    echo $$ >> "{folder}/builds"
    while [ "$1" != -o ]; do shift; done
    echo example.com/one
    {compile}
    echo example.com/two
    printf '#!/bin/sh\\n' > "$2"
    chmod +x "$2"
    ;;
esac
"""
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def write_program(file: Path, script: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def write_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("PERLLM_KUBERNETES_VERSION", raising=False)
    return lambda compile: write_program(tmp_path / "bin" / "go", FAKE_GO.format(folder=tmp_path, compile=compile))


def read_builds(folder: Path) -> list[int]:
    file = folder / "builds"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def copy_module(folder: Path) -> Module:
    module = list_modules()[0]
    shutil.copytree(module.folder, folder)
    return replace(module, folder=folder)


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_key_changes_with_every_source(tmp_path: Path, file: str) -> None:
    module = copy_module(tmp_path / "module")
    before = compute_key(module)
    assert compute_key(list_modules()[0]) == before
    (module.folder / file).write_text("changed")
    assert compute_key(module) != before


def test_key_changes_with_flags_and_machine() -> None:
    module = list_modules()[0]
    keys = {
        compute_key(module),
        compute_key(replace(module, flags=())),
        compute_key(module, machine="other"),
        compute_key(module, system="other"),
    }
    assert len(keys) == 4


def test_key_of_a_release_does_not_depend_on_the_requirements_of_another(tmp_path: Path) -> None:
    module = copy_module(tmp_path / "module")
    (module.folder / "1.32.mod").write_text("changed")
    assert compute_key(module) == compute_key(list_modules()[0])
    assert compute_key(replace(module, requirements="1.32.mod")) != compute_key(list_modules("1.32")[0])


async def test_builds_all_programs_of_a_module_as_one(cache: Path, write_go: Callable[[str], None]) -> None:
    write_go("")
    found = await provide(CONTROL_PLANE, cache_folder=cache)
    assert list(found) == list(CONTROL_PLANE)
    assert len({path.resolve() for path in found.values()}) == 1


async def test_compilers_do_not_collect_garbage_as_rarely_as_programs_of_tests_do(
    tmp_path: Path, cache: Path, write_go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOGC", "400")
    write_go('echo "$GOGC" > "$(dirname "$0")/pace"')
    await provide(["etcd"], cache_folder=cache)
    assert (tmp_path / "bin/pace").read_text() == "100\n"


async def test_reports_the_progress_of_the_build(cache: Path, write_go: Callable[[str], None]) -> None:
    write_go("")
    reported: list[Progress] = []
    await provide(["prometheus"], cache_folder=cache, on_progress=reported.append)
    assert [(progress.stage, progress.done, progress.total) for progress in reported] == [
        ("downloading", 1, 0),
        ("compiling", 0, 2),
        ("compiling", 1, 2),
        ("compiling", 2, 2),
        ("done", 2, 2),
    ]


async def test_builds_once_for_two_at_the_same_time(
    tmp_path: Path, cache: Path, write_go: Callable[[str], None]
) -> None:
    write_go("sleep 0.1")
    reported: list[Progress] = []
    first, second = await asyncio.gather(
        *(provide(["prometheus"], cache_folder=cache, on_progress=reported.append) for _ in range(2))
    )
    assert first == second
    assert len(read_builds(tmp_path)) == 1
    assert [progress.stage for progress in reported].count("waiting") == 1


async def test_failed_build_is_reported_and_can_be_repeated(cache: Path, write_go: Callable[[str], None]) -> None:
    write_go("echo 'two.go:1: no space left on device'; exit 1")
    with pytest.raises(ToolchainError, match="no space left on device"):
        await provide(["prometheus"], cache_folder=cache)
    write_go("")
    assert (await provide(["prometheus"], cache_folder=cache))["prometheus"].exists()


async def test_cancelled_build_leaves_nothing(tmp_path: Path, cache: Path, write_go: Callable[[str], None]) -> None:
    write_go("sleep 600")
    compiling = asyncio.Event()

    def record(progress: Progress) -> None:
        if progress.stage == "compiling" and progress.done:
            compiling.set()

    building = asyncio.create_task(provide(["prometheus"], cache_folder=cache, on_progress=record))
    await compiling.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    (pid,) = read_builds(tmp_path)
    assert not is_alive(pid)
    assert [name.split(".")[1:] for name in list_names(cache / "programs")] == [["lock"]]


def write_assets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONTROL_PLANE:
        write_program(folder / name, "")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))


async def test_prefers_a_complete_set_of_assets(
    tmp_path: Path, cache: Path, write_go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_go("")
    write_assets(tmp_path / "assets", monkeypatch)
    assert (await provide(CONTROL_PLANE, cache_folder=cache))["etcd"] == tmp_path / "assets" / "etcd"
    (tmp_path / "assets" / "kube-scheduler").unlink()
    assert (await provide(CONTROL_PLANE, cache_folder=cache))["etcd"].is_relative_to(cache)


async def test_an_older_kubernetes_is_built_whatever_is_installed(
    tmp_path: Path, cache: Path, write_go: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_go("")
    write_assets(tmp_path / "assets", monkeypatch)
    monkeypatch.setenv("PERLLM_KUBERNETES_VERSION", "1.32")
    older = (await provide(CONTROL_PLANE, cache_folder=cache))["etcd"]
    assert older.parent.name.startswith("control-plane-1.32-")
    monkeypatch.setenv("PERLLM_KUBERNETES_VERSION", "1.9")
    with pytest.raises(ToolchainError, match=r"PERLLM_KUBERNETES_VERSION is 1\.9; choose one of 1\.32, "):
        await provide(CONTROL_PLANE, cache_folder=cache)


@pytest.mark.parametrize(("version", "taken"), [("3.16.0", True), ("2.55.1", False), ("4.0.0", False)])
async def test_takes_programs_of_a_fitting_version_from_path(
    tmp_path: Path, cache: Path, write_go: Callable[[str], None], version: str, taken: bool
) -> None:
    write_go("")
    write_program(tmp_path / "bin" / "prometheus", f"#!/bin/sh\necho prometheus, version {version}\n")
    found = (await provide(["prometheus"], cache_folder=cache))["prometheus"]
    assert (found == tmp_path / "bin" / "prometheus") is taken


async def test_unknown_program_is_reported(cache: Path) -> None:
    with pytest.raises(ToolchainError, match=r"no program 'minikube'; choose one of etcd, "):
        await provide(["minikube"], cache_folder=cache)
    assert list_names(cache) == []
