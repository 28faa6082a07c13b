import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.real.cluster import SCENARIO, RealCluster, open_cluster
from e2e.real.release import APP_VERSION, IMAGE, PREVIOUS_VERSION, Helm, Release, make_namespace
from perllm_lab.kubernetes.toolchain import VERSION_VARIABLE, ask_version, default_cache_folder, provide
from perllm_lab.lab import COMPONENTS
from perllm_lab.workload.scenarios import load_scenario
from programs.modules import list_test_modules
from realnode import node, requirements
from realnode.containers import PAUSE_IMAGE
from realnode.images import builder, operating_system
from realnode.images.builder import ImageBuilder
from realnode.images.operating_system import provide_base
from realnode.images.recipes import operator_recipe, program_recipe
from realnode.model_server import installation
from realnode.model_server.installation import install_model_server

ROOT = Path(__file__).parents[3]
REQUIRE = "PERLLM_REQUIRE_REAL_NODE"


@pytest.fixture(scope="session", autouse=True)
def capable_machine() -> None:
    """Skip where no real node can run, unless that is required."""
    if os.environ.get(VERSION_VARIABLE):
        pytest.skip("a kubelet must not be newer than the API server, and the only one here is the newest")
    needed = (*requirements.PROGRAMS, *builder.PROGRAMS, *operating_system.PROGRAMS, *installation.PROGRAMS)
    obstacle = requirements.find_obstacle(needed)
    if obstacle is None:
        return
    if os.environ.get(REQUIRE):
        pytest.fail(f"{REQUIRE} is set, but {obstacle}")
    pytest.skip(obstacle)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def programs() -> dict[str, Path]:
    names = (*COMPONENTS, *node.PROGRAMS, "pause", "helm")
    return await provide(names, cache_folder=default_cache_folder(), more_modules=list_test_modules())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def images(programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The images that pods use here: that of the Dockerfile, kube-scheduler, pause."""
    folder, start_s = tmp_path_factory.mktemp("images"), time.monotonic()
    image_builder = ImageBuilder(default_cache_folder() / "images")
    await image_builder.tidy()
    base = await provide_base(image_builder)
    version = ".".join(map(str, await ask_version((programs["kube-scheduler"], "--version"), os.environ)))
    scheduler = f"registry.k8s.io/kube-scheduler:v{version}"
    recipes = (
        await operator_recipe(f"{IMAGE}:{APP_VERSION}", ROOT, base, folder),
        program_recipe(scheduler, programs["kube-scheduler"], folder / "scheduler"),
        program_recipe(PAUSE_IMAGE, programs["pause"], folder / "pause"),
    )
    archives = [await image_builder.archive(recipe) for recipe in recipes]
    sizes = ", ".join(
        f"{recipe.name} {archive.stat().st_size / 1e6:.0f} MB"
        for recipe, archive in zip(recipes, archives, strict=True)
    )
    print(f"\nimages in {time.monotonic() - start_s:.0f} s: {sizes}")
    return archives


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(
    programs: dict[str, Path], images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealCluster]:
    """Shared by all tests, as is the release in it: each test works in a namespace of its own."""
    llm = await install_model_server(default_cache_folder())
    start_s = time.monotonic()
    async with open_cluster(programs, images, llm, load_scenario(SCENARIO), tmp_path_factory.mktemp("real")) as cluster:
        print(f"\ncluster in {time.monotonic() - start_s:.1f} s")
        await cluster.containers.tag(f"{IMAGE}:{APP_VERSION}", f"{IMAGE}:{PREVIOUS_VERSION}")
        yield cluster


@pytest.fixture(scope="session")
def helm(programs: dict[str, Path], cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(programs["helm"], tmp_path_factory.mktemp("helm"), cluster)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def release(helm: Helm) -> Release:
    """The chart as it is, in a namespace where the Pod Security Standard `restricted` is enforced."""
    release = Release(helm, "perllm", "perllm-system")
    await make_namespace(helm.cluster, release.namespace, restricted=True)
    start_s = time.monotonic()
    await release.install()
    print(f"\nhelm install until ready in {time.monotonic() - start_s:.1f} s")
    return release
