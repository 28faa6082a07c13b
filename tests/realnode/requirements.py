"""What a real node needs from the machine that it runs on."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# Debian calls the packages: containerd runc containernetworking-plugins iptables iproute2 util-linux mount.
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "ip", "unshare", "nsenter", "mount")
_NETWORK_PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_NETWORK_PLUGINS = ("bridge", "host-local", "loopback")


def find_obstacle(programs: Sequence[str] = PROGRAMS) -> str | None:
    """Return why this machine cannot run a real node; None when it can."""
    if sys.platform != "linux":
        return f"a real node needs Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "a real node needs root: containers, network devices and iptables rules"
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if find_network_plugins() is None:
        return f"no network plugins ({', '.join(_NETWORK_PLUGINS)}) in {', '.join(_NETWORK_PLUGIN_FOLDERS)}"
    return None


def find_network_plugins() -> Path | None:
    """Return the folder that has all the required CNI plugins; None when there is none."""
    for folder in map(Path, _NETWORK_PLUGIN_FOLDERS):
        if all(os.access(folder / name, os.X_OK) for name in _NETWORK_PLUGINS):
            return folder
    return None
