"""The Go modules of programs that only tests run: what a real node consists of, Helm, and Kueue."""

from pathlib import Path

from perllm_lab.kubernetes.modules import Module, Program, read_release, stamp_release

_HELM_VERSION = "helm.sh/helm/v4/internal/version.version"


def list_test_modules(folder: Path = Path(__file__).parent / "go") -> tuple[Module, ...]:
    """Return the modules that tests need in addition to those of the lab."""
    return (
        Module(
            name="node",
            folder=folder / "node",
            package=".",
            flags=stamp_release(read_release(folder / "node" / "go.mod", "k8s.io/kubernetes")),
            programs=(Program("kubelet", (1, 37)), Program("kube-proxy", (1, 37))),
        ),
        Module(
            name="pause",
            folder=folder / "pause",
            package=".",
            flags=("-ldflags=-s -w",),
            programs=(Program("pause", (1, 0)),),
        ),
        Module(
            name="helm",
            folder=folder / "helm",
            package="tool",
            flags=(f"-ldflags=-s -w -X {_HELM_VERSION}={read_release(folder / 'helm' / 'go.mod', 'helm.sh/helm/v4')}",),
            programs=(Program("helm", (4, 0), ("version", "--short")),),
        ),
        Module(
            name="kueue",
            folder=folder / "kueue",
            package="tool",
            flags=("-ldflags=-s -w",),
            programs=(Program("kueue", (0, 17)),),
        ),
    )
