"""podman of this distribution, unpacked outside the system, with its own storage and settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.lab.containers.engines import SYSTEM_PATH
from tests.lab.training import wait_for

# as root and without systemd, which a test machine may not have. Limits: podman's default may be more than is allowed
_SETTINGS = """\
[containers]
seccomp_profile = "{root}/usr/share/containers/seccomp.json"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_path = ["{root}/usr/bin/conmon"]
helper_binaries_dir = ["{root}/usr/lib/podman"]
runtime = "runc"
[engine.runtimes]
runc = ["/usr/sbin/runc", "/usr/bin/runc"]
[network]
network_config_dir = "{folder}/networks"
"""
_STORE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/data"
runroot = "{folder}/run"
"""


class Podman(NamedTuple):
    """Its folder, and the environment in which `podman` is this one."""

    folder: Path
    environ: Mapping[str, str]

    def podman(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / "podman"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def checked(self, *arguments: str) -> str:
        result = self.podman(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    def containers(self) -> list[str]:
        return self.checked("ps", "--all", "--quiet").split()

    def images(self) -> set[str]:
        return set(self.checked("image", "ls", "--all", "--quiet", "--no-trunc").split())


@contextmanager
def podman_in(folder: Path, root: Path) -> Iterator[Podman]:
    """`root`: where its packages were unpacked."""
    program = root / "usr" / "bin" / "podman"
    home = folder / "home" / ".config" / "containers"
    for place in (folder / "bin", folder / "lib", folder / "networks", home):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(_SETTINGS.format(root=root, folder=folder))
    (folder / "storage.conf").write_text(_STORE.format(folder=folder))
    (folder / "registries.conf").write_text("")
    (home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    # only the libraries that this system lacks: its own loader must find its own C library
    linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    found = {place.name: place for place in root.glob("usr/lib/*-linux-gnu*/*.so*")}
    todo = [line.split()[0] for line in linked.splitlines() if "not found" in line]
    todo += ["libassuan.so.0", "libgpg-error.so.0"]
    for name in todo:
        if name in found and not (folder / "lib" / name).exists():
            (folder / "lib" / name).symlink_to(found[name])
    settings = {
        "HOME": str(folder / "home"),
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
    lines = [f"export {name}={value}" for name, value in settings.items()]
    starter = folder / "bin" / "podman"
    starter.write_text("\n".join(["#!/bin/sh", *lines, f'exec {program} "$@"', ""]))
    starter.chmod(0o755)
    socket = f"unix://{folder}/podman.sock"
    path = f"{folder / 'bin'}:{SYSTEM_PATH}:{os.environ.get('PATH', '')}"
    made = Podman(folder, {"PATH": path, "CONTAINER_HOST": socket})
    # what podman.socket starts
    service = subprocess.Popen([str(starter), "system", "service", "--time=0", socket], stdin=subprocess.DEVNULL)
    try:
        wait_for(Path(f"{folder}/podman.sock").exists, 20)
        yield made
    finally:
        service.terminate()
        service.wait()
        made.podman("system", "reset", "--force")
        subprocess.run(["umount", "--lazy", str(folder / "data" / "overlay")], capture_output=True, check=False)
